"""What is remembered of a rollout between two looks, and when it is worth a write.

A status is written when something changed that a later look builds on: the candidate, its target,
a bar, an end. Evidence between two such moments is kept in this process only. When it is lost, the
servers' counters tell it again, as one larger block; time at a step begins anew. So losing it
delays a rollout and changes nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dwcp_ml.operator.api.state import Memory, Sealer
from dwcp_ml.operator.settings import Key, Pace
from dwcp_ml.rollout.holds import QUIET
from dwcp_ml.rollout.status import Phase, RolloutStatus

_SAME: Final = {Phase.PENDING: Phase.PROGRESSING, Phase.WATCHING: Phase.PROGRESSING}
"""Phases that need no write of their own: target and time tell them apart."""


@dataclass(frozen=True)
class Kept:
    """A memory, and the one that is stored.

    Parameters
    ----------
    memory
        The newest, stored or not; ``None`` for none.
    stored
        The one in the status.
    seal
        Of the stored one: names it.
    stored_at, troubled_since
        By the monotonic clock; the second is ``None`` while all is well.
    resumed
        Whether something was lost since the stored one: the process is another, or leads anew.
        Then time at a step is stored as it passes, or a process that never lives as long as a step
        lasts would never let it pass.
    """

    memory: Memory | None
    stored: Memory | None
    seal: str
    stored_at: float
    troubled_since: float | None = None
    resumed: bool = False


class Memories:
    """Reads memories from statuses, and keeps what is newer than they are.

    Parameters
    ----------
    sealer
        Writes and reads them.
    """

    def __init__(self, sealer: Sealer) -> None:
        self.sealer = sealer
        self._newest: dict[Key, tuple[str, Kept]] = {}
        self._lock = threading.Lock()

    def read(self, key: Key, uid: str, status: Mapping[str, Any], now: float) -> Kept:
        """Return what is remembered of an object.

        Parameters
        ----------
        uid
            ``metadata.uid``.
        status
            As it was read.
        now
            By the monotonic clock.

        Raises
        ------
        NotBelieved
            If the status was not written by this operator.
        """
        text, seal = _text(status, "memory"), _text(status, "seal")
        stored = self.sealer.open(text, seal, uid)
        with self._lock:
            known = self._newest.get(key)
        if known is not None and known[0] == uid and known[1].seal == seal:
            return known[1]
        under_way = stored is not None and not stored.rollout.ended
        return Kept(stored, stored, seal, stored_at=now, resumed=under_way)

    def keep(self, key: Key, uid: str, kept: Kept) -> None:
        """Remember until the next look, in this process only."""
        with self._lock:
            self._newest[key] = (uid, kept)

    def forget(self, key: Key | None = None) -> None:
        """Forget what is not stored of one object, or of all."""
        with self._lock:
            if key is None:
                self._newest.clear()
            else:
                self._newest.pop(key, None)


def _text(status: Mapping[str, Any], name: str) -> str:
    value = status.get(name)
    return value if isinstance(value, str) else ""


def is_troubled(rollout: RolloutStatus, live_percent: int | None) -> bool:
    """Return whether a rollout is held by what a person should know of."""
    if rollout.ended:
        return False
    if not live_percent and "candidate is not ready" in rollout.reason:
        return False  # that it waits for this was told when the candidate came
    return rollout.reason.startswith("holding: ") and not rollout.reason.endswith(QUIET)


def must_store(
    kept: Kept, new: Memory, live_percent: int | None, pace: Pace, now: float
) -> tuple[bool, Kept]:
    """Return whether a memory is worth a write, and what to keep if it is not.

    Parameters
    ----------
    kept
        What the look began with.
    new
        What it ended with.
    now
        By the monotonic clock.
    """
    troubled = is_troubled(new.rollout, live_percent)
    since = kept.troubled_since if kept.troubled_since is not None else now
    following = replace(kept, memory=new, troubled_since=since if troubled else None)
    if kept.stored is None or _marks(kept.stored) != _marks(new):
        return True, following
    shown = is_troubled(kept.stored.rollout, live_percent)
    age = now - kept.stored_at
    if troubled and not shown:
        return now - since >= pace.trouble_seconds, following
    if shown and kept.stored.rollout.reason != new.rollout.reason:
        return age >= pace.trouble_seconds, following
    if kept.resumed and _seconds_since(kept.stored, new) >= pace.resumed_seconds:
        return True, following
    return 0.0 < pace.evidence_seconds <= age, following


def _seconds_since(stored: Memory, new: Memory) -> float:
    """Return the time between two looks, by the clock that they were made with."""
    return (new.rollout.last_look or 0.0) - (stored.rollout.last_look or 0.0)


def _marks(memory: Memory) -> tuple[object, ...]:
    rollout = memory.rollout
    return (
        rollout.revision,
        rollout.target_percent,
        _SAME.get(rollout.phase, rollout.phase),
        rollout.barred,
        rollout.observed_generation,
        memory.stable,
    )
