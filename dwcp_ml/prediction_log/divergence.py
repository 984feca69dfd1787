"""How far apart the predictions of two versions for one instance are; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dwcp_ml.contract.champion import signed_difference
from dwcp_ml.contract.models import COMPARED_OUTPUTS


def signed(model: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> float | None:
    """Return the candidate's difference from the stable for one instance.

    See ``contract.champion.signed_difference``; ``None`` if a prediction is missing or not finite.
    """
    for name in COMPARED_OUTPUTS[model]:
        if name in stable or name in candidate:
            break
    found = signed_difference(name, _number(stable.get(name)), _number(candidate.get(name)))
    return found if math.isfinite(found) else None


def absolute(signed_difference: float | None) -> float:
    """Return how far apart two predictions are, 0 to 1; one that is missing is 1 from any."""
    return 1.0 if signed_difference is None else min(abs(signed_difference), 1.0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, bool | int | float) else math.nan
