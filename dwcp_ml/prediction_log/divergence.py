"""How far apart the predictions of two versions for one instance are; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from dwcp_ml.contract.champion import NUMBERS, SCORES, signed_difference
from dwcp_ml.contract.models import COMPARED_OUTPUTS


def signed(model: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> float | None:
    """Return the candidate's difference from the stable for one instance.

    See ``contract.champion.signed_difference``; ``None`` if a prediction, or the score behind it
    where the stable has one, is missing or not finite.
    """
    name = _compared(model, stable, candidate)
    found = _difference(name, stable, candidate)
    score = SCORES.get(name)
    is_whole = (
        score is None or score not in stable or _difference(score, stable, candidate) is not None
    )
    return found if is_whole else None


def answer(model: str, stable: Mapping[str, Any]) -> int | None:
    """Return the stable's class or flag; ``None`` of an output that is a number, or is missing."""
    name = _compared(model, stable, stable)
    value = _number(stable.get(name))
    return int(value) if name not in NUMBERS and math.isfinite(value) else None


def score_difference(
    model: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]
) -> float | None:
    """Return, of a flag, the candidate's difference from the stable in the score behind it.

    ``None`` for other outputs, and where one of the two has no such score.
    """
    score = SCORES.get(_compared(model, stable, candidate))
    return None if score is None else _difference(score, stable, candidate)


def _compared(model: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> str:
    names = COMPARED_OUTPUTS[model]
    return next((name for name in names if name in stable or name in candidate), names[-1])


def _difference(name: str, stable: Mapping[str, Any], candidate: Mapping[str, Any]) -> float | None:
    found = signed_difference(name, _number(stable.get(name)), _number(candidate.get(name)))
    return found if math.isfinite(found) else None


def absolute(signed_difference: float | None) -> float:
    """Return how far apart two predictions are, 0 to 1; one that is missing is 1 from any."""
    return 1.0 if signed_difference is None else min(abs(signed_difference), 1.0)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, bool | int | float) else math.nan
