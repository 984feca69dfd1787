"""The finalizer of a ModelRollout, which restores the traffic before it is deleted."""

from __future__ import annotations

from typing import Any

from dwcp_ml.kube.kserve import ObservedTraffic
from dwcp_ml.operator.settings import FINALIZER, Key

__all__ = ["FINALIZER", "UnknownWeights", "is_under_way", "with_finalizer"]


class UnknownWeights:
    """Time since the live weight of a rollout that is being deleted became unknown.

    It is unknown for a moment after each change of the traffic.
    """

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}

    def lasts(self, key: Key, live: ObservedTraffic, now: float, seconds: float) -> bool:
        """Return whether the weight has been unknown for this long, by the monotonic clock."""
        if live.percent is not None:
            self._since.pop(key, None)
            return False
        return now - self._since.setdefault(key, now) >= seconds

    def forget(self, key: Key) -> None:
        """Drop an object that is gone."""
        self._since.pop(key, None)


def is_under_way(live: ObservedTraffic) -> bool:
    """Return whether a candidate is deployed beside the stable."""
    return live.exists and live.candidate is not None


def with_finalizer(body: dict[str, Any], desired: bool) -> dict[str, Any]:
    """Return the object with our finalizer, or without."""
    metadata = body["metadata"]
    others = [each for each in metadata.get("finalizers") or () if each != FINALIZER]
    return {
        **body,
        "metadata": {**metadata, "finalizers": [*others, FINALIZER] if desired else others},
    }
