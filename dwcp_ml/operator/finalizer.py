"""What happens to the traffic when a ModelRollout is deleted."""

from __future__ import annotations

from typing import Any

from dwcp_ml.kube.kserve import Live
from dwcp_ml.operator.settings import FINALIZER, Key

__all__ = ["FINALIZER", "Unclear", "is_under_way", "why_not", "with_finalizer"]


class Unclear:
    """How long nobody has said what the candidates have of those rollouts that are to go.

    After each change of the traffic that is so for a moment.
    """

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}

    def lasts(self, key: Key, live: Live, now: float, seconds: float) -> bool:
        """Return whether it has been so for so many seconds, by the monotonic clock."""
        if live.percent is not None:
            self._since.pop(key, None)
            return False
        return now - self._since.setdefault(key, now) >= seconds

    def forget(self, key: Key) -> None:
        """Forget an object that is gone."""
        self._since.pop(key, None)


def is_under_way(live: Live) -> bool:
    """Return whether a candidate stands beside the stable."""
    return live.exists and live.candidate is not None


def why_not(live: Live) -> str:
    """Return why a candidate can't be taken back, and what a person can do."""
    return (
        "it is to be deleted, and its candidate can't be taken back "
        f"({live.refused or live.error}); set deletionPolicy to Keep to let it go."
    )


def with_finalizer(body: dict[str, Any], wanted: bool) -> dict[str, Any] | None:
    """Return the object with our finalizer, or without; ``None`` if it is so already."""
    metadata = body["metadata"]
    before = list(metadata.get("finalizers") or ())
    if (FINALIZER in before) == wanted:
        return None
    others = [one for one in before if one != FINALIZER]
    after = [*others, FINALIZER] if wanted else others
    return {**body, "metadata": {**metadata, "finalizers": after}}
