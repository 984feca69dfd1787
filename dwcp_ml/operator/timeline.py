"""The timeline of a rollout on a cluster: of its stored state and the Kubernetes Events left."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.kube.api import EVENT, MODEL_ROLLOUT, AccessDenied, Api, Object
from dwcp_ml.operator.api.rollout_status import ModelRolloutStatus
from dwcp_ml.operator.conditions import cause_of_phase, is_stalled, read_status
from dwcp_ml.operator.events import Event, event_name
from dwcp_ml.operator.state_store import InvalidState, read_state
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import MAX_EVENTS, RolloutStatus
from dwcp_ml.rollout.timeline import KubernetesEvents, Timeline, TimelineEvent, events_of

_EVENTS: Final = {
    KubernetesEvents.ALL: "Each change still has its Kubernetes Event. Waits and stalls are shown "
    "as far as there are Events of them.",
    KubernetesEvents.SOME: "Some changes have no Kubernetes Event any more: Kubernetes deletes "
    "Events, by default after an hour. Earlier waits and stalls are not shown.",
    KubernetesEvents.NONE: "No change has a Kubernetes Event any more: Kubernetes deletes Events, "
    "by default after an hour. Waits and stalls from before then are not shown.",
    KubernetesEvents.FORBIDDEN: "You may not list Events in this namespace, so waits and stalls "
    "are not shown.",
}


@dataclass(frozen=True)
class StoredRollout:
    """A ModelRollout as its object shows it.

    Parameters
    ----------
    rollout
        The state that the operator stored; ``None`` if there is none, or it can't be read.
    newer
        Whether the operator is of a newer release, whose changes this one can't read.
    """

    body: Object
    status: ModelRolloutStatus
    rollout: RolloutStatus | None = None
    stable: Revision | None = None
    newer: bool = False

    @property
    def outcome(self) -> str:
        """The phase, or ``Stalled`` for a rollout that can't go on and has not ended."""
        ended = self.rollout is not None and self.rollout.ended
        return "Stalled" if is_stalled(self.status) and not ended else self.status.phase.value

    @property
    def candidate(self) -> Revision:
        """The candidate of the state; that of the spec before there is one."""
        if self.rollout is not None and self.rollout.revision is not None:
            return self.rollout.revision
        named = self.body["spec"]["candidate"]
        return Revision(
            version=named["version"], digest=named["digest"], uri=named.get("storageUri", "")
        )

    @property
    def written_at(self) -> float | None:
        """When the evidence was counted, epoch seconds; ``None`` if nothing is known of it."""
        return self.rollout.last_reconciled if self.rollout is not None else None


def stored_rollout(api: Api, namespace: str, name: str) -> StoredRollout:
    """Return a rollout of a cluster.

    Raises
    ------
    UsageError
        If there is none of that name.
    KubeError
        If the API server does not respond, or does not permit it.
    """
    body = api.get(MODEL_ROLLOUT, namespace, name)
    if body is None:
        raise UsageError(
            f"There is no ModelRollout {name} in the namespace {namespace}: "
            "kubectl get modelrollouts -A lists all.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=name,
        )
    status = read_status(body.get("status") or {})
    try:
        state = read_state(status.state)
    except InvalidState:
        state = None
    if state is None:
        return StoredRollout(body, status)
    newer = not state.rollout.events and bool(json.loads(status.state)["rollout"].get("events"))
    return StoredRollout(body, status, state.rollout, state.stable, newer)


def cluster_timeline(api: Api, namespace: str, name: str, now: float) -> Timeline:
    """Return the timeline of a rollout on a cluster, under way or ended.

    Parameters
    ----------
    now
        Epoch seconds.

    Raises
    ------
    UsageError
        If there is no such rollout.
    KubeError
        If the API server does not respond, or does not permit it.
    """
    stored = stored_rollout(api, namespace, name)
    rollout, status, spec = stored.rollout, stored.status, stored.body["spec"]
    changes = events_of(rollout.events) if rollout is not None else ()
    try:
        listed = api.list(EVENT, namespace)
    except AccessDenied:
        found, others = KubernetesEvents.FORBIDDEN, list[TimelineEvent]()
    else:
        found, others = _compared(stored, (namespace, name), listed)
    return Timeline(
        model=spec.get("model") or spec["inferenceService"],
        stable=stored.stable,
        candidate=stored.candidate,
        events=tuple(sorted((*changes, *others), key=lambda event: event.at)),
        verdicts=rollout.verdicts if rollout is not None else (),
        candidate_requests=status.exposed_requests,
        read_at=now,
        kubernetes_events=found,
        sources=(*_state_sources(stored), _EVENTS[found]),
        reason=status.reason,
        message=status.message,
        outcome=stored.outcome,
    )


def _state_sources(stored: StoredRollout) -> Iterable[str]:
    if stored.rollout is None:
        yield "The operator has stored no state of this rollout that can be read."
        return
    if stored.newer:
        yield "The operator is of a newer release: update dwcp-ml to see the changes in its state."
        return
    yield (
        "The changes of phase, step and target weight are those of the operator's state "
        "(status.state)."
    )
    if len(stored.rollout.events) == MAX_EVENTS:
        yield f"The state has the newest {MAX_EVENTS} changes: earlier ones are not shown."
    if stored.written_at is not None and not stored.rollout.ended:
        moment = datetime.fromtimestamp(stored.written_at, UTC)
        yield f"Requests and evidence are of {moment:%Y-%m-%d %H:%M:%S} UTC, as last stored."


def _compared(
    stored: StoredRollout, key: tuple[str, str], listed: Iterable[Object]
) -> tuple[KubernetesEvents, list[TimelineEvent]]:
    """Return how many changes have their Event, and the Events that are none of a change."""
    uid = stored.body["metadata"]["uid"]
    names = set()
    for change in stored.rollout.events if stored.rollout is not None else ():
        cause = cause_of_phase(change.phase, change.cause)
        event = Event(key, uid, "ModelRollout", False, cause.reason, cause.sentence)
        names.add(event_name(event))
    own = {
        each["metadata"]["name"]: each
        for each in listed
        if (each.get("involvedObject") or {}).get("uid") == uid
    }
    kept = len(names & own.keys())
    found = KubernetesEvents.SOME if kept else KubernetesEvents.NONE
    if kept and kept == len(names):
        found = KubernetesEvents.ALL
    start = math.floor(stored.rollout.started_at) if stored.rollout is not None else 0
    others = [own[name] for name in own.keys() - names]
    return found, [_event(each, start) for each in others if _last(each) >= start]


def _event(event: Object, start: float) -> TimelineEvent:
    """Return an Event of a rollout that began at ``start``, in epoch seconds."""
    count = max(int(event.get("count") or 1), 1)
    first = _time(event.get("firstTimestamp"), event)
    return TimelineEvent(
        at=first if first >= start else _last(event),
        phase=None,
        percent=None,
        reason=str(event.get("reason") or "Event"),
        message=str(event.get("message") or ""),
        count=count,
    )


def _last(event: Object) -> float:
    return _time(event.get("lastTimestamp"), event)


def _time(text: Any, event: Object) -> float:
    """Return a time of an Event in epoch seconds; Events of the newer API have one time only."""
    chosen = text or event.get("eventTime") or event["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(chosen).timestamp()
