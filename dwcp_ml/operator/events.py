"""Kubernetes Events about ModelRollouts and TrainingRuns, one for each change.

The same event again raises the count of the Event that exists. An Event that can't be written is
dropped: nothing depends on it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from dwcp_ml.kube.api import EVENT, MODEL_ROLLOUT, TRAINING_RUN, Api, Conflict, KubeError
from dwcp_ml.operator.api.parts import shortened, timestamp
from dwcp_ml.operator.settings import SYSTEM_CLOCK, Clock, Key

COMPONENT: Final = "dwcp-ml-operator"
REPEAT_SECONDS: Final = 600.0
"""The same event is not written again sooner."""

_MAX_NOTE: Final = 1000
_MAX_RECORDED: Final = 4096
_KINDS: Final = {kind.kind: kind for kind in (MODEL_ROLLOUT, TRAINING_RUN)}


@dataclass(frozen=True)
class Event:
    """Something that happened to an object."""

    key: Key
    uid: str
    kind: str
    warning: bool
    reason: str
    message: str


class EventRecorder(Protocol):
    """Records events."""

    def record(self, event: Event) -> None:
        """Record an event; never fails."""
        ...


class NullRecorder:
    """Records nothing."""

    def record(self, event: Event) -> None:
        """Drop the event."""


class KubernetesRecorder:
    """Records events as Kubernetes Events."""

    def __init__(self, api: Api, clock: Clock = SYSTEM_CLOCK) -> None:
        self._api = api
        self._clock = clock
        self._recorded: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def record(self, event: Event) -> None:
        """Write the event, unless the same one was written a short time ago; never fails."""
        name = event_name(event)
        if self._is_repeated(name):
            return
        try:
            self._write(event, name)
        except KubeError:
            return

    def _is_repeated(self, name: str) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            recorded = self._recorded.get(name)
            if recorded is not None and now - recorded < REPEAT_SECONDS:
                return True
            self._recorded[name] = now
            self._recorded.move_to_end(name)
            while len(self._recorded) > _MAX_RECORDED:
                self._recorded.popitem(last=False)
            return False

    def _write(self, event: Event, name: str) -> None:
        moment = timestamp(datetime.fromtimestamp(self._clock.wall(), UTC))
        try:
            self._api.create(_body(event, name, moment))
        except Conflict:
            existing = self._api.get(EVENT, event.key[0], name)
            if existing is not None:
                count = int(existing.get("count") or 1) + 1
                self._api.replace({**existing, "count": count, "lastTimestamp": moment})


def event_name(event: Event) -> str:
    """Return the name of the Kubernetes Event of an event."""
    content = "\0".join((event.uid, event.reason, event.message))
    return f"{event.key[1]}.{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def _body(event: Event, name: str, moment: str) -> dict[str, Any]:
    namespace, object_name = event.key
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"namespace": namespace, "name": name},
        "involvedObject": {
            "apiVersion": _KINDS[event.kind].api_version,
            "kind": event.kind,
            "namespace": namespace,
            "name": object_name,
            "uid": event.uid,
        },
        "type": "Warning" if event.warning else "Normal",
        "reason": event.reason,
        "message": shortened(event.message, _MAX_NOTE),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
