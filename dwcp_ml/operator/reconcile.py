"""One reconciliation of a ModelRollout, level-triggered: everything is read anew each time.

Read the object, read the live weights, read the metrics, decide, store the state, and only then
make at most one write to the InferenceService. Each write carries the resourceVersion that was
read: of two writers one gets ``Conflict``, and reconciles again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.kube.api import INFERENCE_SERVICE as SERVICE
from dwcp_ml.kube.api import MODEL_ROLLOUT, AccessDenied, Api, Conflict, Invalid
from dwcp_ml.kube.kserve import (
    ROUTERS,
    ChangeRejected,
    DesiredRevision,
    ObservedTraffic,
    Router,
    Routers,
    manager_of,
)
from dwcp_ml.operator import conditions, finalizer
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.rollout_status import ModelRolloutStatus
from dwcp_ml.operator.comparison import Comparison, PodComparison
from dwcp_ml.operator.events import Event, EventRecorder, NullRecorder
from dwcp_ml.operator.observation import (
    AbsentServices,
    Place,
    Request,
    Source,
    observe,
    request_of,
)
from dwcp_ml.operator.other_writers import Reverted, WatchedApi, WriteHistory
from dwcp_ml.operator.plan import (
    Plan,
    accepted_request,
    current_state,
    in_its_mode,
    is_hidden,
    is_rolled_back,
    next_plan,
    obstacle_of,
)
from dwcp_ml.operator.policy import Policy
from dwcp_ml.operator.settings import DEFAULT_INTERVALS, SYSTEM_CLOCK, Clock, Intervals, Key
from dwcp_ml.operator.state_store import (
    CachedState,
    RolloutState,
    StateStore,
    is_stalled,
    needs_write,
    with_new_state,
)
from dwcp_ml.rollout.cause import Cause
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.retry import is_retry_due
from dwcp_ml.rollout.spec import RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus, is_of_candidate
from dwcp_ml.rollout.verdict import Verdict

_LOG = logging.getLogger("dwcp_ml.operator")


@dataclass(frozen=True)
class Result:
    """The result of one reconciliation.

    Parameters
    ----------
    requeue_after
        Seconds until the next reconciliation; ``None`` when the object is gone.
    wrote
        ``status``, ``inferenceservice``, ``finalizer``: the writes requested, in this order; a
        router may find that nothing has to change.
    phase
        Of the rollout; empty where it is unknown.
    live_percent
        The candidate's live weight; ``None`` where it is unknown.
    stalled
        The reason, if the rollout is stalled by something other than its end.
    verdicts
        Of the tests of a rollout that is under way.
    """

    requeue_after: float | None
    wrote: tuple[str, ...] = ()
    phase: str = ""
    live_percent: int | None = None
    stalled: Reason | None = None
    verdicts: tuple[Verdict, ...] = ()


GONE: Final = Result(None)


@dataclass
class Reconciler:
    """Reconciles ModelRollouts, each object by one thread at a time.

    Parameters
    ----------
    api
        The API server; a process that does not lead has one that rejects writes.
    """

    api: Api
    source: Source
    clock: Clock = SYSTEM_CLOCK
    intervals: Intervals = DEFAULT_INTERVALS
    recorder: EventRecorder = field(default_factory=NullRecorder)
    routers: Routers = field(default_factory=lambda: ROUTERS)
    policy: Policy = field(default_factory=Policy)
    comparison: Comparison = field(default_factory=PodComparison)

    def __post_init__(self) -> None:
        self.states = StateStore()
        self.unknown_weights = finalizer.UnknownWeights()
        self.absent_services = AbsentServices()
        self.histories: dict[Key, WriteHistory] = {}
        self.requests: dict[Key, tuple[str, int, Policy, Request]] = {}
        """The valid requests, with uid, generation and policy: a spec that stays is parsed once."""

    def reconcile(self, key: Key) -> Result:
        """Reconcile one object once.

        Raises
        ------
        KubeError
            If the API server can't be reached or rejects the request; try again later.
        """
        body = self.api.get(MODEL_ROLLOUT, *key)
        if body is None:
            self.states.forget(key)
            self.unknown_weights.forget(key)
            self.absent_services.forget(key)
            self.histories.pop(key, None)
            self.requests.pop(key, None)
            return GONE
        reconciliation = Reconciliation(self, key, body)
        try:
            return reconciliation.run()
        except Conflict:
            return Result(self.intervals.conflict_seconds, tuple(reconciliation.wrote))


class Reconciliation:
    """One reconciliation of one ModelRollout as it was read."""

    def __init__(self, reconciler: Reconciler, key: Key, body: dict[str, Any]) -> None:
        self._reconciler = reconciler
        self._api = reconciler.api
        self._intervals = reconciler.intervals
        self._key = key
        self._body = body
        self._metadata: Mapping[str, Any] = body["metadata"]
        self._uid: str = self._metadata.get("uid", "")
        self._generation: int = self._metadata.get("generation", 0)
        self._status = conditions.read_status(body.get("status") or {})
        self._now = reconciler.clock.wall()
        self._monotonic = reconciler.clock.monotonic()
        self._history = reconciler.histories.setdefault(key, WriteHistory())
        self._watched = WatchedApi(reconciler.api, self._history, self._monotonic)
        self._status_forbidden: AccessDenied | Invalid | None = None
        self.wrote: list[str] = []

    def run(self) -> Result:
        """Reconcile: parse, finalize or take hold, read, decide, store, write."""
        cached = self._reconciler.states.read(
            self._key, self._uid, self._status.state, self._monotonic
        )
        deleting = bool(self._metadata.get("deletionTimestamp"))
        try:
            asked = self._parse()
            request = in_its_mode(asked, cached.state)
        except UsageError as error:
            obstacle = Cause(reason=Reason.INVALID_SPEC, detail=str(error))
            accepted = accepted_request(cached.state, self._body, obstacle)
            if accepted is None:
                return self._without_request(obstacle, deleting=deleting)
            asked = request = accepted
        if not deleting and self._is_mode_given_up(asked, request):
            request = asked
        router = self._reconciler.routers[request.mode](self._watched, *self._key)
        if deleting:
            return self._finalize(request, router)
        try:
            if self._set_finalizer(request.restores):
                return Result(0.0, tuple(self.wrote))
        except (AccessDenied, Invalid) as error:
            request = replace(request, obstacle=request.obstacle or _forbidden(error))
        return self._decide(request, router, cached)

    def _is_mode_given_up(self, asked: Request, request: Request) -> bool:
        """Return whether a rollout goes on in the mode that is asked for, not in its own."""
        absent = self._reconciler.absent_services
        if asked.mode == request.mode:
            absent.forget(self._key)
            return False
        try:
            router = self._reconciler.routers[request.mode](self._watched, *self._key)
            return absent.is_mode_unused(self._key, router.read(request.desired), self._monotonic)
        except AccessDenied:
            absent.forget(self._key)
            return False

    def _without_request(self, obstacle: Cause, *, deleting: bool) -> Result:
        """Take a candidate out where the object says so, though nothing of it was ever valid."""
        spec = self._body.get("spec")
        fields: Mapping[str, Any] = spec if isinstance(spec, Mapping) else {}
        restores = deleting and fields.get("deletionPolicy") == "Restore"
        if fields.get("abort") is True or restores:
            template = fields.get("template")
            mode = template.get("deploymentMode") if isinstance(template, Mapping) else None
            router = self._reconciler.routers["Knative" if mode == "Knative" else "Standard"](
                self._watched, *self._key
            )
            live = router.read(DesiredRevision("", "", "", predictor={}, model=""))
            if finalizer.is_under_way(live):
                router.drop(live)
                self.wrote.append("inferenceservice")
                if deleting:
                    return Result(self._intervals.conflict_seconds, tuple(self.wrote))
        return self._release() if deleting else self._obstacle(obstacle)

    def _parse(self) -> Request:
        """Return what the object asks for.

        Raises
        ------
        UsageError
            If it is not valid.
        """
        parsed = self._reconciler.requests.get(self._key)
        basis = self._uid, self._generation, self._reconciler.policy
        if parsed is not None and parsed[:3] == basis:
            return parsed[3]
        request = self._parse_anew()
        self._reconciler.requests[self._key] = *basis, request
        return request

    def _parse_anew(self) -> Request:
        # The status is left out: only its state counts, so the rest can't be invalid.
        resource = ModelRollout.parse({**self._body, "status": None})
        request = request_of(resource, manager_of(self._body, "spec", "retry"))
        refusal = self._reconciler.policy.refusal(resource)
        if refusal is not None:
            return replace(request, obstacle=refusal)
        unsupported = set(request.spec.analysis.enabled) - self._reconciler.source.supported_tests
        if not unsupported:
            return request
        obstacle = Cause(reason=Reason.TEST_NOT_SUPPORTED, test=min(unsupported))
        return replace(request, obstacle=obstacle)

    def _decide(self, request: Request, router: Router, cached: CachedState) -> Result:
        try:
            live = router.read(request.desired)
        except AccessDenied as error:
            return self._obstacle(Cause(reason=Reason.READ_FORBIDDEN, detail=_clause(error)))
        state = current_state(cached, request, live, self._now)
        spec = request.spec.replace(stable=state.stable)
        goes_back = spec.abort or is_rolled_back(state.rollout.phase)
        observed = observe(
            spec, live, self._source_for(state, spec), Place(*self._key),
            None if goes_back else self._reconciler.comparison,  # it takes seconds
            state.rollout.pairs_cursor,
        )  # fmt: skip
        ended = state.rollout.ended
        obstacle = obstacle_of(request, cached, live, ended=ended)
        if not ended and not self._history.is_due(self._monotonic):
            obstacle = obstacle or self._history.cause(self._monotonic)
        observed = observed.replace(obstacle=obstacle)
        plan = next_plan(spec, state, live, observed, self._now)
        try:
            if plan.obstacle is not None:
                self._write(plan, router, live, request.desired)
                return self._obstacle(plan.obstacle)
            return self._carry_out(plan, router, live, request, cached, observed.obstacle)
        except Reverted as error:
            cause = self._history.cause(self._monotonic)
            return self._obstacle(cause or Cause(reason=Reason.WRITE_REJECTED, detail=str(error)))
        except (ChangeRejected, Invalid) as error:
            return self._obstacle(Cause(reason=Reason.WRITE_REJECTED, detail=str(error)))
        except AccessDenied as error:
            return self._obstacle(_forbidden(error))

    def _carry_out(
        self,
        plan: Plan,
        router: Router,
        live: ObservedTraffic,
        request: Request,
        cached: CachedState,
        obstacle: Cause | None,
    ) -> Result:
        """Store the state of a plan, where it is worth a write, and then make its write."""
        rollout, shares = plan.state.rollout, request.spec.shares
        new = with_new_state(cached, plan.state, self._monotonic)
        stalled = self._is_stalled(new, rollout.cause)
        if cached.invalid and not is_rolled_back(rollout.phase):
            # What can't be read stays as it is: whoever wrote it may be able to.
            self._reconciler.states.cache(self._key, self._uid, new)
            self._write(plan, router, live, request.desired)
            return self._obstacle(Cause(reason=Reason.INVALID_STATE, detail=cached.invalid))
        if needs_write(cached, plan.state, self._intervals, self._monotonic) or (
            stalled and self._is_outdated(cached, rollout.cause)
        ):
            new = self._store_before_write(new, plan, live, shares, stalled=stalled)
        self._reconciler.states.cache(self._key, self._uid, new)
        self._write(plan, router, live, request.desired)
        if self._status_forbidden is not None:
            return self._obstacle(_forbidden(self._status_forbidden))
        if (reverted := self._history.cause(self._monotonic)) is not None:
            return self._obstacle(reverted)
        if obstacle is not None and is_hidden(obstacle, rollout):
            return self._obstacle(obstacle)
        if self._shows_an_obstacle_that_is_gone(rollout, stalled=stalled):
            new = self._store(new, plan.state, live, shares, stalled=stalled)
            self._reconciler.states.cache(self._key, self._uid, new)
        after = (
            self._intervals.ended_seconds if rollout.ended else self._intervals.reconcile_seconds
        )
        return Result(
            after, tuple(self.wrote), rollout.phase, live.percent if live.exists else 0,
            rollout.cause.reason if stalled else None, () if rollout.ended else rollout.verdicts,
        )  # fmt: skip

    def _source_for(self, state: RolloutState, spec: RolloutSpec) -> Source | None:
        """Return where counters come from; ``None`` once the rollout of this candidate ended."""
        rollout = state.rollout
        is_same = is_of_candidate(spec, rollout)
        is_over = rollout.ended and is_same and not is_retry_due(spec, rollout)
        return None if is_over else self._reconciler.source

    def _store_before_write(
        self,
        new: CachedState,
        plan: Plan,
        live: ObservedTraffic,
        shares: tuple[int, ...],
        *,
        stalled: bool,
    ) -> CachedState:
        """Store the state of a plan; if that is rejected, go on with a roll-back only.

        Raises
        ------
        AccessDenied, Invalid
            If it is rejected, and the candidate's traffic is not being removed.
        """
        try:
            return self._store(new, plan.state, live, shares, stalled=stalled)
        except (AccessDenied, Invalid) as error:
            if not is_rolled_back(plan.state.rollout.phase):
                raise
            self._status_forbidden = error
            return new

    def _store(
        self,
        new: CachedState,
        state: RolloutState,
        live: ObservedTraffic,
        shares: tuple[int, ...],
        *,
        stalled: bool,
    ) -> CachedState:
        """Write the state into the status, and record the events since the stored one."""
        status = conditions.status_of_rollout(
            state, self._status, live.percent, shares, self._now, stalled=stalled
        )
        if (reverted := self._history.cause(self._monotonic)) is not None:
            before = status.replace(conditions=self._status.conditions)
            status = conditions.status_of_obstacle(reverted, before, self._generation, self._now)
        cause = state.rollout.cause
        is_new_stall = stalled and not self._is_known_stall(cause)
        self._write_status(status)
        self._record_events(new.stored, state)
        if is_new_stall:
            self._record(True, cause)
        return replace(new, stored=state, text=status.state, stored_at=self._monotonic, invalid="")

    def _is_stalled(self, new: CachedState, cause: Cause) -> bool:
        if new.waiting_since is None:
            return False
        if is_stalled(cause, self._monotonic - new.waiting_since, self._intervals):
            return True
        # A process that was restarted does not know for how long the rollout has waited.
        return self._is_known_stall(cause)

    def _is_known_stall(self, cause: Cause) -> bool:
        """Return whether the status says that the rollout is stalled for this reason."""
        return conditions.is_stalled(self._status) and self._status.reason is cause.reason

    def _is_outdated(self, cached: CachedState, cause: Cause) -> bool:
        """Return whether the status does not say that the rollout is stalled, or not why."""
        if not conditions.is_stalled(self._status):
            return True
        if self._status.reason in _FOUND_BY_WRITING:
            return False  # the write that follows tells whether it is still so
        age = self._monotonic - cached.stored_at
        return self._status.reason is not cause.reason and age >= self._intervals.stall_seconds

    def _shows_an_obstacle_that_is_gone(self, rollout: RolloutStatus, *, stalled: bool) -> bool:
        if not conditions.is_stalled(self._status):
            return False
        if stalled:
            return self._status.reason in _FOUND_BY_WRITING
        return not rollout.ended or self._status.reason is not rollout.cause.reason

    def _write(
        self, plan: Plan, router: Router, live: ObservedTraffic, desired: DesiredRevision
    ) -> None:
        """Make at most one write to the InferenceService.

        Raises
        ------
        AccessDenied, ChangeRejected, Invalid
            If it is forbidden, or rejected.
        """
        if plan.action == "none" or (plan.action == "set" and not desired.predictor):
            return  # without a template nothing but a roll-back can be written
        self._watched.rolls_back = _takes_traffic(plan, live)
        if plan.action == "set":
            router.set(live, desired, plan.percent)
        elif plan.action == "promote":
            router.promote(live, desired)
        elif plan.action == "drop":
            router.drop(live)
        else:
            self._watched.delete(SERVICE, *self._key, resource_version=live.resource_version)
        self.wrote.append("inferenceservice")

    def _finalize(self, request: Request, router: Router) -> Result:
        """Let the object go, once its deletion policy is carried out."""
        self._reconciler.states.forget(self._key)
        if finalizer.FINALIZER not in self._metadata.get("finalizers", ()):
            return GONE
        self._watched.rolls_back = True
        try:
            live = router.read(request.desired) if request.restores else None
            if live is None or not finalizer.is_under_way(live):
                return self._release()
            router.drop(live)
        except (AccessDenied, ChangeRejected, Invalid) as error:
            return self._obstacle(Cause(reason=Reason.DELETION_BLOCKED, detail=_clause(error)))
        self.wrote.append("inferenceservice")
        unknown = self._reconciler.unknown_weights.lasts(
            self._key, live, self._monotonic, self._intervals.stall_seconds
        )
        if live.unsupported or unknown:
            detail = _clause(live.unsupported or live.error)
            return self._obstacle(Cause(reason=Reason.DELETION_BLOCKED, detail=detail))
        return Result(self._intervals.conflict_seconds, tuple(self.wrote))

    def _release(self) -> Result:
        self._set_finalizer(False)
        return GONE

    def _set_finalizer(self, desired: bool) -> bool:
        """Add or remove our finalizer; return whether that took a write."""
        if (finalizer.FINALIZER in self._metadata.get("finalizers", ())) == desired:
            return False
        self._api.replace(finalizer.with_finalizer(self._body, desired))
        self.wrote.append("finalizer")
        return True

    def _obstacle(self, cause: Cause) -> Result:
        """Write why the rollout can't go on, once."""
        status = conditions.status_of_obstacle(cause, self._status, self._generation, self._now)
        if status != self._status:
            try:
                self._write_status(status)
            except (AccessDenied, Invalid) as error:
                _LOG.warning("%s", error)  # then the metric alone says that it is stalled
            self._record(True, cause)
        phase = str(self._status.phase or Phase.PENDING)
        return Result(
            self._intervals.reconcile_seconds, tuple(self.wrote), phase, stalled=cause.reason
        )

    def _write_status(self, status: ModelRolloutStatus) -> None:
        self._body = self._api.replace({**self._body, "status": status.to_dict()}, status=True)
        self._status = status
        self.wrote.append("status")

    def _record_events(self, stored: RolloutState | None, new: RolloutState) -> None:
        last = stored.rollout.events[-1:] if stored is not None else ()
        events = new.rollout.events
        first = events.index(last[0]) + 1 if last and last[0] in events else 0
        for event in events[first:]:
            warning = event.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
            self._record(warning, conditions.cause_of_phase(event.phase, event.cause))

    def _record(self, warning: bool, cause: Cause) -> None:
        self._reconciler.recorder.record(
            Event(self._key, self._uid, "ModelRollout", warning, cause.reason, cause.sentence)
        )


def _takes_traffic(plan: Plan, live: ObservedTraffic) -> bool:
    """Return whether the write of a plan takes traffic from the candidate, and gives none."""
    if is_rolled_back(plan.state.rollout.phase):
        return True
    return plan.action == "set" and live.percent is not None and plan.percent < live.percent


_FOUND_BY_WRITING: Final = frozenset({Reason.WRITE_REJECTED, Reason.WRITE_FORBIDDEN})
"""Obstacles that only the next attempt to write can find gone."""


def _forbidden(error: AccessDenied | Invalid) -> Cause:
    return Cause(reason=Reason.WRITE_FORBIDDEN, detail=_clause(error))


def _clause(sentence: object) -> str:
    return str(sentence).rstrip(".")
