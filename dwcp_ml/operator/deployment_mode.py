"""The deployment mode of a rollout that is under way: it ends in the one in which it began.

Read in another mode, a split looks like something else. The CRD forbids to change the mode, unless
the object was stored before that rule, or its spec was removed in between. The mode is stored
before the first write, so it may be that of a rollout of which nothing was ever written. Such a
mode is given up once the InferenceService shows that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dwcp_ml.kube.kserve import ObservedTraffic
from dwcp_ml.operator.observation import Request
from dwcp_ml.operator.settings import Key
from dwcp_ml.operator.state_store import RolloutState
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason

LATE_WRITE_SECONDS: Final = 120.0
"""A write without an answer may still be made this much later, though not by default: the API
server ends a request after 60 s."""


def in_its_mode(request: Request, state: RolloutState | None) -> Request:
    """Return the request in the mode in which its rollout began, until that has ended.

    In its own mode a roll-back goes through.
    """
    if state is None or state.mode in (None, request.mode):
        return request
    if state.rollout.ended:
        return request
    detail = f"its rollout began in the mode {state.mode}, set deploymentMode to it again."
    obstacle = Cause(reason=Reason.SPLIT_NOT_SUPPORTED, detail=detail)
    return replace(request, mode=state.mode, obstacle=obstacle)


class AbsentServices:
    """Time for which there has been no InferenceService of a rollout that waits for its mode."""

    def __init__(self) -> None:
        self._since: dict[Key, float] = {}

    def is_mode_unused(self, key: Key, live: ObservedTraffic, now: float) -> bool:
        """Return whether nothing of a rollout is live, or can become live, in its mode.

        An InferenceService of another mode is proof, unless a candidate is seen there: no write in
        this mode fits it. Where there is none, the first write may still be under way.

        Parameters
        ----------
        key
            Of the ModelRollout.
        live
            As it is read in the mode of the rollout.
        now
            By the monotonic clock.
        """
        if live.exists:
            self._since.pop(key, None)
            return bool(live.other_mode) and live.candidate is None
        return now - self._since.setdefault(key, now) >= LATE_WRITE_SECONDS

    def forget(self, key: Key) -> None:
        """Drop an object that is gone, or has its mode again."""
        self._since.pop(key, None)
