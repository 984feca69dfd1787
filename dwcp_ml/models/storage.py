"""Files of a trained model and of a checkpoint: arrays and JSON, written atomically, no pickle."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from dwcp_ml.contract.arrays import Array
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.files import write_bytes

DESCRIPTION_NAME: Final = "model.json"
ARRAYS_NAME: Final = "arrays.npz"


def pack(arrays: Mapping[str, Array]) -> bytes:
    """Return arrays as the bytes of an ``.npz`` file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, Array]:
    """Return the arrays of an ``.npz`` file.

    Raises ``ValueError`` if the bytes are not an ``.npz`` file, or hold objects.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(f"no arrays: {error}") from error


def write_model(
    directory: Path, description: Mapping[str, Any], arrays: Mapping[str, Array]
) -> None:
    """Write a trained model: its arrays, then the description with their digest."""
    content = pack(arrays)
    with_digest = {**description, "arrays_sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(directory / ARRAYS_NAME, content)
    write_bytes(directory / DESCRIPTION_NAME, (json.dumps(with_digest, indent=2) + "\n").encode())


def read_description(directory: Path) -> dict[str, Any]:
    """Return the description of the model in ``directory``; ``DwcpError`` if there is none."""
    path = directory / DESCRIPTION_NAME
    try:
        stored = json.loads(path.read_bytes())
    except OSError as error:
        raise DwcpError(
            f"There is no trained model at {directory}: can't read {path}.",
            code=ErrorCode.CANT_READ,
            subject=path,
        ) from error
    except ValueError as error:
        raise DwcpError(
            f"{path} is not JSON; train the model again.",
            code=ErrorCode.MALFORMED,
            subject=path.name,
        ) from error
    if not isinstance(stored, dict):
        raise DwcpError(
            f"{path} does not describe a model; train the model again.",
            code=ErrorCode.MALFORMED,
            subject=path.name,
        )
    return stored


def read_arrays(directory: Path, description: Mapping[str, Any]) -> dict[str, Array]:
    """Return the arrays whose digest ``description`` holds; ``DwcpError`` if missing or changed."""
    path = directory / ARRAYS_NAME
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != description.get("arrays_sha256"):
            raise ValueError("changed since it was written")
        return unpack(content)
    except (OSError, ValueError) as error:
        raise DwcpError(
            f"{path} is missing or damaged; train the model again.",
            code=ErrorCode.INCOMPLETE,
            subject=path.name,
        ) from error
