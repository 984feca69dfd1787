"""Kubernetes Events about ModelRollouts and TrainingRuns: one for each thing that happened.

The same thing said again counts up the Event that is there. An Event that can't be written is
dropped: nothing depends on it.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, Final

from dwcp_ml.kube.api import EVENT, MODEL_ROLLOUT, TRAINING_RUN, Api, Conflict, KubeError
from dwcp_ml.operator.api.parts import shortened, timestamp
from dwcp_ml.operator.settings import SYSTEM, Clock
from dwcp_ml.operator.telling import Happening

COMPONENT: Final = "dwcp-ml-operator"
QUIET_SECONDS: Final = 600.0
"""The same thing is not told again sooner."""

_LONGEST_NOTE: Final = 1000
_MOST_REMEMBERED: Final = 4096
_KINDS: Final = {kind.kind: kind for kind in (MODEL_ROLLOUT, TRAINING_RUN)}


class Events:
    """Writes Events.

    Parameters
    ----------
    api
        Where to.
    clock
        When.
    """

    def __init__(self, api: Api, clock: Clock = SYSTEM) -> None:
        self._api = api
        self._clock = clock
        self._told: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, happening: Happening) -> None:
        """Tell; never fails."""
        name = _name(happening)
        if self._is_known(name):
            return
        try:
            self._write(happening, name)
        except KubeError:
            return

    def _is_known(self, name: str) -> bool:
        now = self._clock.monotonic()
        with self._lock:
            told = self._told.get(name)
            if told is not None and now - told < QUIET_SECONDS:
                return True
            self._told[name] = now
            self._told.move_to_end(name)
            while len(self._told) > _MOST_REMEMBERED:
                self._told.popitem(last=False)
            return False

    def _write(self, happening: Happening, name: str) -> None:
        moment = timestamp(datetime.fromtimestamp(self._clock.wall(), UTC))
        try:
            self._api.create(_event(happening, name, moment))
        except Conflict:
            found = self._api.get(EVENT, happening.key[0], name)
            if found is not None:
                count = int(found.get("count") or 1) + 1
                self._api.replace({**found, "count": count, "lastTimestamp": moment})


def _name(happening: Happening) -> str:
    said = "\0".join((happening.uid, happening.reason, happening.text))
    return f"{happening.key[1]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"


def _event(happening: Happening, name: str, moment: str) -> dict[str, Any]:
    namespace, about = happening.key
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {"namespace": namespace, "name": name},
        "involvedObject": {
            "apiVersion": _KINDS[happening.kind].api_version,
            "kind": happening.kind,
            "namespace": namespace,
            "name": about,
            "uid": happening.uid,
        },
        "type": "Warning" if happening.warning else "Normal",
        "reason": happening.reason,
        "message": shortened(happening.text, _LONGEST_NOTE),
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
