"""The four models by name, each imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.models import model_spec
from dwcp_ml.models.protocol import Model
from dwcp_ml.models.storage import read_description

_CLASSES: Final = {
    "bandwidth_predictor": "BandwidthPredictor",
    "compression_selector": "CompressionSelector",
    "reliability_detector": "ReliabilityDetector",
    "consensus_latency": "ConsensusLatency",
}


def create(name: str, settings: Mapping[str, Any] | None = None, form: str | None = None) -> Model:
    """Return an untrained model by its full, short or Kubernetes name.

    ``settings`` override the model's YAML, as nested keys; ``form`` overrides that of the settings.
    Raises ``UsageError`` if the name, the form, a key or a value is wrong.
    """
    full_name = model_spec(name).name
    module = importlib.import_module(f"dwcp_ml.models.{full_name}")
    overrides = {**(settings or {}), **({} if form is None else {"form": form})}
    model: Model = getattr(module, _CLASSES[full_name])(overrides)
    return model


def load(directory: Path) -> Model:
    """Return the trained model that ``save`` wrote to ``directory``; nothing is unpickled.

    Raises ``DwcpError`` if there is none, or it is incomplete.
    """
    stored = read_description(directory)
    if stored.get("name") not in _CLASSES:
        raise DwcpError(
            f"{directory} holds no known model: its name is {stored.get('name')!r}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=str(stored.get("name")),
        )
    try:
        model = create(stored["name"], stored["settings"])
        model.restore(directory, stored)
    except (KeyError, TypeError) as error:
        raise DwcpError(
            f"The model in {directory} is incomplete: {error} is missing.",
            code=ErrorCode.INCOMPLETE,
            subject=str(error).strip("'"),
        ) from error
    return model
