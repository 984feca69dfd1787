"""Other writers that undo what the operator writes to an InferenceService, such as GitOps.

After ``MAX_REVERTS`` of the same write the rollout is stalled, and writes rarely, until a write has
stayed. A roll-back is not held back, unless it is what is undone. Nothing of this is stored: a
process that starts counts from 0.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dwcp_ml.kube.api import INFERENCE_SERVICE, Api, Object, ResourceKind
from dwcp_ml.kube.kserve import ChangeRejected
from dwcp_ml.kube.kserve.knative import PERCENT
from dwcp_ml.kube.kserve.objects import covers, last_spec_writer
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason

MAX_REVERTS: Final = 3
"""Reverts of the same write after which a rollout is stalled."""

WINDOW_SECONDS: Final = 6 * 3600.0
"""Earlier reverts are not counted: GitOps tools reconcile every few minutes, or every hour."""

FIRST_PAUSE_SECONDS: Final = 300.0
MAX_PAUSE_SECONDS: Final = 1800.0
"""Between two writes while they are undone; doubles with each revert."""

FIRST_ROLL_BACK_PAUSE_SECONDS: Final = 10.0
MAX_ROLL_BACK_PAUSE_SECONDS: Final = 60.0
"""The same for a write of a roll-back that is undone."""

MARGIN_SECONDS: Final = 60.0
"""A write has stayed if it is this much older than twice the longest time to a revert."""


class Reverted(ChangeRejected):
    """The write is not made yet, because another writer has undone it several times."""


@dataclass(frozen=True)
class _Write:
    text: str
    spec: Mapping[str, Any]
    generation: int
    at: float


class WriteHistory:
    """The writes to one InferenceService, and which of them another writer has undone."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._last: _Write | None = None
        self._standing: set[str] = set()
        self._attempts: dict[str, float] = {}
        self._reverts: list[tuple[float, str]] = []
        self._longest = 0.0
        self._level: int | None = None
        self._last_at = 0.0
        self._writer = ""

    def read(self, isvc: Object, now: float) -> None:
        """Take note of the InferenceService as it was read.

        Parameters
        ----------
        now
            By the monotonic clock.
        """
        last = self._last
        # An older generation is a read that is behind.
        if last is None or isvc["metadata"].get("generation", 0) <= last.generation:
            return
        if not _stands(isvc["spec"], last.spec):
            self._undone(last, last_spec_writer(isvc), now)

    def missing(self, now: float) -> None:
        """Take note that there is no InferenceService: another writer deleted what was created."""
        if self._last is not None:
            self._undone(self._last, "", now)

    def deleted(self) -> None:
        """Take note that the operator deleted the InferenceService."""
        self._last, self._standing = None, set()

    def _undone(self, last: _Write, writer: str, now: float) -> None:
        self._writer = writer
        self._longest = max(self._longest, now - last.at)
        self._reverts += [(now, text) for text in self._standing]
        self._reverts = [each for each in self._reverts if now - each[0] < WINDOW_SECONDS]
        self._last, self._standing = None, set()
        if self._level is not None:
            self._level += 1
        elif self._counts().most_common(1)[0][1] >= MAX_REVERTS:
            self._level = 0

    def wrote(self, text: str, stored: Object, now: float) -> None:
        """Take note of a write, and of the object that the API server returned."""
        generation = stored["metadata"].get("generation", 0)
        self._last = _Write(text, stored["spec"], generation, now)
        self._standing.add(text)
        self._attempts[text] = self._last_at = now

    def cause(self, now: float) -> Cause | None:
        """Return that the writes are undone, until one has stayed; ``None`` if they are not."""
        if self._level is None:
            return None
        if self._last is not None:
            is_over = now - self._last.at > 2.0 * self._longest + MARGIN_SECONDS
        else:
            is_over = now - self._last_at > 2.0 * MAX_PAUSE_SECONDS  # no write is due any more
        if is_over:
            self._reset()
            return None
        count = self._counts().most_common(1)
        return Cause(
            reason=Reason.REVERTED_BY_ANOTHER_WRITER,
            detail=self._writer or UNKNOWN_WRITER,
            value=max(count[0][1] if count else 0, MAX_REVERTS),
        )

    def is_due(self, now: float) -> bool:
        """Return whether the next write is due, where writes are undone."""
        if self._level is None:
            return True
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** min(self._level, 10), MAX_PAUSE_SECONDS)
        return now - self._last_at >= pause

    def may_write(self, text: str, now: float, *, rolls_back: bool) -> bool:
        """Return whether a write may be made now.

        Parameters
        ----------
        rolls_back
            Whether it takes traffic from the candidate.
        """
        if not rolls_back:
            return self.is_due(now)
        count = self._counts()[text]
        if count < MAX_REVERTS:
            return True
        pause = FIRST_ROLL_BACK_PAUSE_SECONDS * 2.0 ** min(count - MAX_REVERTS, 10)
        return now - self._attempts.get(text, 0.0) >= min(pause, MAX_ROLL_BACK_PAUSE_SECONDS)

    def _counts(self) -> Counter[str]:
        return Counter(text for _, text in self._reverts)


def _stands(live: Mapping[str, Any], written: Mapping[str, Any]) -> bool:
    """Return whether a live spec has all that was written, and no candidate that was removed."""
    return covers(live, written) and _has_candidate(live) == _has_candidate(written)


def _has_candidate(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("canary")) or PERCENT in spec["predictor"]


UNKNOWN_WRITER: Final = "another writer"


@dataclass
class WatchedApi:
    """An ``Api`` that takes note of each InferenceService that is read and written.

    Parameters
    ----------
    now
        By the monotonic clock.
    """

    api: Api
    history: WriteHistory
    now: float
    rolls_back: bool = False

    def get(self, kind: ResourceKind, namespace: str, name: str) -> Object | None:
        """Return the object; ``None`` if there is none."""
        obj = self.api.get(kind, namespace, name)
        if kind is INFERENCE_SERVICE and obj is not None:
            self.history.read(obj, self.now)
        elif kind is INFERENCE_SERVICE:
            self.history.missing(self.now)
        return obj

    def list(
        self, kind: ResourceKind, namespace: str | None = None, labels: str = ""
    ) -> list[Object]:
        """Return the objects of a namespace, or of all, that a label selector selects."""
        return self.api.list(kind, namespace, labels)

    def create(self, obj: Object) -> Object:
        """Create the object.

        Raises
        ------
        Reverted
            As ``replace``.
        """
        text = self._checked(obj)
        stored = self.api.create(obj)
        self.history.wrote(text, stored, self.now)
        return stored

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """Replace the object.

        Raises
        ------
        Reverted
            If another writer has undone this several times, and the next attempt is not due.
        """
        text = self._checked(obj)
        stored = self.api.replace(obj, status=status)
        self.history.wrote(text, stored, self.now)
        return stored

    def apply(
        self, obj: Object, *, manager: str, resource_version: str | None, force: bool = False
    ) -> Object:
        """Apply the fields of the object."""
        return self.api.apply(obj, manager=manager, resource_version=resource_version, force=force)

    def delete(
        self,
        kind: ResourceKind,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Delete the object."""
        self.api.delete(kind, namespace, name, uid=uid, resource_version=resource_version)
        self.history.deleted()

    def _checked(self, obj: Object) -> str:
        """Return the text of a write that may be made now."""
        text = json.dumps(obj["spec"], sort_keys=True)
        if not self.history.may_write(text, self.now, rolls_back=self.rolls_back):
            raise Reverted("Another writer has undone this change several times.")
        return text
