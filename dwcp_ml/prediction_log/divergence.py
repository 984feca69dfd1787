"""How far apart the predictions of two versions for one instance are; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dwcp_ml.contract.models import COMPARED_OUTPUTS


def difference(model: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> float:
    """Return how far apart two predictions for one instance are, 0 to 1.

    Bandwidth: ``|a − b| / max(1, |a|)`` of the throughputs in Mbit/s, 1 at most; everything else:
    0 if the predictions are equal, 1 if not. A missing or NaN prediction differs from any.
    """
    for name in COMPARED_OUTPUTS[model]:
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
