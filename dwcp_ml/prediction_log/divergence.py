"""How far apart the predictions of two versions for one instance are; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

_OUTPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "bandwidth_predictor": ("next_throughput_mbps", "bandwidth_class"),
    "compression_selector": ("compression_level", "compression_type"),
    "reliability_detector": ("is_anomaly",),
    "consensus_latency": ("is_high_latency",),
}
"""The output that is compared: of the default form, else of the alternative."""


def difference(model: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> float:
    """Return how far apart two predictions for one instance are, 0 to 1.

    Bandwidth: ``|a − b| / max(1, |a|)`` of the throughputs in Mbit/s, 1 at most; everything else:
    0 if the predictions are equal, 1 if not. A missing or NaN prediction differs from any.
    """
    for name in _OUTPUTS[model]:
        if name in stable or name in candidate:
            break
    a, b = _number(stable.get(name)), _number(candidate.get(name))
    if math.isnan(a) or math.isnan(b):
        return 1.0
    if name != "next_throughput_mbps":
        return float(a != b)
    return min(1.0, abs(a - b) / max(1.0, abs(a)))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, bool | int | float) else math.nan
