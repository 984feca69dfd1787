"""How many replicas stand behind each share, while there are two predictors; all pure.

KServe does not scale a canary, and it takes a ready canary's replicas off the stable's
``minReplicas``. Left to itself it would so let a stable of ten go down to one replica while the
candidate has all traffic: too few to go back to at once. So here, while there is a candidate,

- it has one replica without traffic, and with any as many as the stable had when it came: no rise
  waits for pods, and to take the stable's place it needs no more of them;
- the stable asks for so many more as KServe takes off.

What the stable asked for before stands in an annotation of the candidate: one in the stable would
restart its pods.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from dwcp_ml.kube.kserve.predictors import Predictor

BEFORE: Final = "ml.dwcp.io/stable-replicas"
_BOUNDS: Final = ("minReplicas", "maxReplicas")


@dataclass(frozen=True)
class Before:
    """The stable's replicas before a candidate came.

    Parameters
    ----------
    replicas
        As many as there were, or as it asked for if that is more.
    minReplicas, maxReplicas
        What it asked for; ``None`` for nothing.
    """

    replicas: int
    minReplicas: int | None = None  # noqa: N815 - KServe's name
    maxReplicas: int | None = None  # noqa: N815


def before_of(stable: Mapping[str, Any], running: int) -> Before:
    """Return what a stable without anything beside it asks for.

    Parameters
    ----------
    running
        Replicas of its Deployment; more than it asks for where it was scaled up.
    """
    asked = {key: int(stable[key]) for key in _BOUNDS if stable.get(key) is not None}
    return Before(max(1, running, asked.get("minReplicas", 1)), **asked)


def remembered(canary: Mapping[str, Any]) -> Before | None:
    """Return what the stable asked for before this canary came; ``None`` if it does not say."""
    text = (canary.get("annotations") or {}).get(BEFORE)
    try:
        return Before(**json.loads(text)) if text else None
    except (ValueError, TypeError):
        return None


def size_of(before: Before, desired: Mapping[str, Any], there: int, percent: int) -> int:
    """Return how many replicas a candidate gets.

    Parameters
    ----------
    desired
        Its template.
    there
        What it asks for already; it never gets less.
    percent
        Its share.
    """
    full = max(before.replicas, int(desired.get("minReplicas") or 0))
    return max(there, full if percent else 1)


def padded(stable: Predictor, before: Before, size: int) -> Predictor:
    """Return the stable predictor with as many more replicas as KServe takes off again.

    KServe leaves a stable its last replica, and refuses a canary that asks for more than it.
    """
    if before.replicas == size == 1 and before.minReplicas != 0:
        return stable
    most = before.replicas + size
    changed = {**stable, "minReplicas": most}
    if before.maxReplicas:
        changed["maxReplicas"] = max(before.maxReplicas, most)
    return changed


def remembering(canary: Predictor, before: Before, size: int) -> Predictor:
    """Return the canary with its replicas, and with what the stable asked for.

    Always, though it matters only above one replica: KServe gives a canary each annotation of its
    stable that it has not itself, and would restart its pods when it loses one on promotion.
    """
    text = json.dumps({key: value for key, value in asdict(before).items() if value is not None})
    annotations = {**(canary.get("annotations") or {}), BEFORE: text}
    return {**canary, "minReplicas": size, "annotations": annotations}


def restored(stable: Predictor, canary: Mapping[str, Any]) -> Predictor:
    """Return the stable predictor with what it asked for before this canary came."""
    before = remembered(canary)
    if before is None:
        return stable
    kept = {key: value for key, value in stable.items() if key not in _BOUNDS}
    bounds = {"minReplicas": before.minReplicas, "maxReplicas": before.maxReplicas}
    return {**kept, **{key: value for key, value in bounds.items() if value is not None}}
