"""What happens to the traffic when a ModelRollout is deleted."""

from __future__ import annotations

from typing import Any

from dwcp_ml.adapters.kserve import Live
from dwcp_ml.operator.settings import FINALIZER

__all__ = ["FINALIZER", "is_under_way", "with_finalizer"]


def is_under_way(live: Live) -> bool:
    """Return whether a candidate stands beside the stable."""
    return live.exists and live.candidate is not None


def with_finalizer(body: dict[str, Any], wanted: bool) -> dict[str, Any] | None:
    """Return the object with our finalizer, or without; ``None`` if it is so already."""
    metadata = body["metadata"]
    before = list(metadata.get("finalizers") or ())
    if (FINALIZER in before) == wanted:
        return None
    others = [one for one in before if one != FINALIZER]
    after = [*others, FINALIZER] if wanted else others
    return {**body, "metadata": {**metadata, "finalizers": after}}
