"""The state of each rollout: read from its status, cached between writes.

A status is written when something changed that a later reconciliation depends on: the candidate,
its target, a blocked digest, an end. Evidence between two writes is in this process only. When it
is lost, the servers' counters bring it back as one larger block, and the time at the step starts
over; so a loss delays a rollout and changes nothing else.

In ``status.state`` the state is one string of plain JSON: a structural schema would bind the CRD to
every detail of the sequential tests, and the length of a string can be bounded. Who may write it is
a matter of RBAC: no role for users includes ``modelrollouts/status``.
"""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, replace
from typing import Final

from pydantic import Field, ValidationError

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.record import Record
from dwcp_ml.operator.api.parts import DeploymentMode
from dwcp_ml.operator.api.rollout_status import MAX_STATE
from dwcp_ml.operator.settings import Intervals, Key
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Stall
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

_SAME: Final = {Phase.PENDING: Phase.PROGRESSING}
"""Phases that need no write of their own: their conditions are the same."""

STATE_VERSION: Final = 1


class InvalidState(DwcpError):
    """``status.state`` can't be read: it was edited."""


class RolloutState(Record):
    """Everything that the operator knows of one rollout's past.

    Text of another release is read as far as this one knows it: see ``read_state``.
    """

    version: int = Field(default=STATE_VERSION, ge=1, description="of what wrote it")
    rollout: RolloutStatus = RolloutStatus()
    stable: Revision | None = Field(
        default=None, description="what was live when the candidate came; null for nothing"
    )
    accepted: RolloutSpec | None = Field(
        default=None,
        description="the newest valid spec: the rollout is judged by it while the object is not "
        "valid, for instance because a newer operator has a new rule",
    )
    mode: DeploymentMode | None = Field(
        default=None, description="in which the rollout began; null if a release did not store it"
    )


def write_state(state: RolloutState) -> str:
    """Return the state as text, of at most ``MAX_STATE`` characters.

    Where it would be longer, it is stored without the counters of the replicas and the evidence
    that was made of them: a process that starts from it gathers evidence from then on.
    """
    text = state.model_dump_json()
    if len(text) <= MAX_STATE:
        return text
    fresh = RolloutStatus()
    rollout = state.rollout.replace(
        stable_counters=fresh.stable_counters,
        candidate_counters=fresh.candidate_counters,
        evidence=fresh.evidence,
        exposed_requests=fresh.exposed_requests,
    )
    return state.replace(rollout=rollout).model_dump_json()


_OPTIONAL: Final = (
    ("cause", "events", "verdicts"),
    ("evidence", "stable_counters", "candidate_counters", "exposed_requests"),
)
"""Fields of the status that are left out, group by group, where a release can't read them: what is
for users, then what is counted again."""


def read_state(text: str) -> RolloutState | None:
    """Return the state that a status holds; ``None`` if it holds none.

    Without a state a rollout starts over, and what is live is read from the InferenceService: an
    empty status is not proof that the rollout never started. Unknown fields are ignored, so that
    an operator that is itself rolled back to an earlier release keeps its rollouts.

    Raises
    ------
    InvalidState
        If the text is not a state.
    """
    if not text:
        return None
    try:
        return RolloutState.model_validate_json(text, extra="ignore")
    except ValidationError as error:
        problem = error
    try:
        fields = json.loads(text)
        for group in _OPTIONAL:
            for name in group:
                fields["rollout"].pop(name, None)
            with contextlib.suppress(ValidationError):
                return RolloutState.model_validate_json(json.dumps(fields), extra="ignore")
    except (ValueError, TypeError, KeyError, AttributeError):
        pass  # it is not even of that shape
    first = problem.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the whole"
    raise InvalidState(f"'{field}' is not valid ({first['msg']}).") from problem


@dataclass(frozen=True)
class CachedState:
    """The newest state of a rollout, and the one that is stored.

    Parameters
    ----------
    state
        The newest, stored or not; ``None`` for none.
    text
        ``status.state`` as stored.
    stored_at
        By the monotonic clock.
    waiting_since
        Since when the rollout waits for something that may stall it, by the monotonic clock;
        ``None`` if it does not.
    resumed
        Whether the process that stored it is gone. Then the time at a step is stored as it passes,
        or a process that is restarted more often than a step lasts would never let it pass.
    invalid
        Why ``text`` can't be read; empty if it can. It is left as it is until the rollout ends.
    """

    state: RolloutState | None
    stored: RolloutState | None
    text: str
    stored_at: float
    waiting_since: float | None = None
    resumed: bool = False
    invalid: str = ""


class StateStore:
    """Reads states from statuses, and caches what is newer."""

    def __init__(self) -> None:
        self._cache: dict[Key, tuple[str, CachedState]] = {}
        self._lock = threading.Lock()

    def read(self, key: Key, uid: str, text: str, now: float) -> CachedState:
        """Return the state of an object.

        Parameters
        ----------
        uid
            ``metadata.uid``.
        text
            ``status.state``.
        now
            By the monotonic clock.
        """
        with self._lock:
            cached = self._cache.get(key)
        if cached is not None and cached[0] == uid and cached[1].text == text:
            return cached[1]
        try:
            stored = read_state(text)
        except InvalidState as error:
            return CachedState(None, None, text, stored_at=now, invalid=str(error))
        under_way = stored is not None and not stored.rollout.ended
        return CachedState(stored, stored, text, stored_at=now, resumed=under_way)

    def cache(self, key: Key, uid: str, state: CachedState) -> None:
        """Keep a state until the next reconciliation, in this process only."""
        with self._lock:
            self._cache[key] = (uid, state)

    def forget(self, key: Key | None = None) -> None:
        """Drop what is not stored of one object, or of all."""
        with self._lock:
            if key is None:
                self._cache.clear()
            else:
                self._cache.pop(key, None)


def is_stalled(cause: Cause, waited: float, intervals: Intervals) -> bool:
    """Return whether a rollout that waited for this cause is stalled.

    Parameters
    ----------
    waited
        Seconds.
    """
    if cause.stall is Stall.AFTER_GRACE:
        return waited >= intervals.stall_seconds
    if cause.stall is Stall.AFTER_DEADLINE:
        return waited >= intervals.progress_deadline_seconds
    return cause.stall is Stall.AT_ONCE


def with_new_state(cached: CachedState, new: RolloutState, now: float) -> CachedState:
    """Return the cached state with a newer one, and since when it waits."""
    waits = not new.rollout.ended and new.rollout.cause.stall is not Stall.NEVER
    since = cached.waiting_since if cached.waiting_since is not None else now
    return replace(cached, state=new, waiting_since=since if waits else None)


def needs_write(cached: CachedState, new: RolloutState, intervals: Intervals, now: float) -> bool:
    """Return whether a state is worth a write of its own; a change of ``Stalled`` always is.

    Parameters
    ----------
    now
        By the monotonic clock.
    """
    if cached.stored is None or _durable(cached.stored) != _durable(new):
        return True
    if cached.resumed and _seconds_between(cached.stored, new) >= intervals.resumed_seconds:
        return True
    return 0.0 < intervals.evidence_seconds <= now - cached.stored_at


def _seconds_between(stored: RolloutState, new: RolloutState) -> float:
    """Return the time between two reconciliations, by the clock that they were made with."""
    return (new.rollout.last_reconciled or 0.0) - (stored.rollout.last_reconciled or 0.0)


def _durable(state: RolloutState) -> tuple[object, ...]:
    """Return what a later process must know."""
    rollout = state.rollout
    return (
        rollout.revision,
        rollout.target_percent,
        _SAME.get(rollout.phase, rollout.phase),
        rollout.blocked,
        rollout.retries,
        rollout.knows_retries,
        rollout.observed_generation,
        state.stable,
        state.accepted,
        None if rollout.ended else state.mode,
    )
