"""One look at a ModelRollout, level-triggered: everything is read, nothing of the past is needed.

Read the object, read what is live, gather what the servers count, decide, store, and only then make
at most one write to the InferenceService. Each write is on the condition that the object is still
the one that was read: of two writers one is told ``Conflict``, and looks again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from dwcp_ml.contract.errors import DwcpError, UsageError
from dwcp_ml.kube.api import INFERENCE_SERVICE as SERVICE
from dwcp_ml.kube.api import MODEL_ROLLOUT, Api, Conflict, Invalid, KubeError
from dwcp_ml.kube.kserve import Live, Refused, Router, Wanted
from dwcp_ml.operator import conditions, finalizer
from dwcp_ml.operator.api.convert import bare_digest, to_rollout_spec
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.state import Memory, NotBelieved, Sealer
from dwcp_ml.operator.observation import Place, Source, observe, wanted_of
from dwcp_ml.operator.plan import Step, next_step, recalled
from dwcp_ml.operator.settings import SYSTEM, USUAL, Clock, Key, Pace
from dwcp_ml.operator.state_store import Kept, Memories, must_store
from dwcp_ml.operator.telling import Happening, Teller, nobody
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase

Routers = Callable[[str, str, str], Router]
"""Namespace, name and deployment mode of an InferenceService -> who moves its traffic."""


@dataclass(frozen=True)
class Result:
    """What one look came to.

    Parameters
    ----------
    requeue_after
        Seconds until the next look; ``None`` when there is nothing to look at any more.
    wrote
        ``status``, ``inferenceservice``, ``finalizer``: what was asked for, in this order; who
        moves the traffic may have found it done already.
    phase
        Of the rollout; empty where it is not known.
    live_percent
        The candidate's share; ``None`` where it is not known.
    trouble
        One sentence; empty if nothing is in the way.
    """

    requeue_after: float | None
    wrote: tuple[str, ...] = ()
    phase: str = ""
    live_percent: int | None = None
    trouble: str = ""


GONE: Final = Result(None)


@dataclass
class Reconciler:
    """Looks at ModelRollouts, one look at a time for each.

    Parameters
    ----------
    api
        Reads and writes; whoever is not the leader has one that refuses to write.
    routers
        Who moves an InferenceService's traffic.
    source
        Where counters come from.
    sealer
        Seals memories.
    clock, pace
        When it is, and how often to look and to write.
    tell
        Tells people what happened.
    """

    api: Api
    routers: Routers
    source: Source
    sealer: Sealer
    clock: Clock = SYSTEM
    pace: Pace = USUAL
    tell: Teller = nobody

    def __post_init__(self) -> None:
        self.memories = Memories(self.sealer)
        self.unclear = finalizer.Unclear()

    def reconcile(self, key: Key) -> Result:
        """Look once.

        Parameters
        ----------
        key
            Namespace and name.

        Raises
        ------
        KubeError
            If the API server does not answer, or not let it; nothing is lost, look again later.
        """
        body = self.api.get(MODEL_ROLLOUT, *key)
        if body is None:
            self.memories.forget(key)
            self.unclear.forget(key)
            return GONE
        look = Look(self, key, body)
        try:
            return look.look()
        except Conflict:
            return Result(self.pace.conflict_seconds, tuple(look.wrote))


class Look:
    """One look at one ModelRollout as it was read."""

    def __init__(self, by: Reconciler, key: Key, body: dict[str, Any]) -> None:
        self._by = by
        self._key = key
        self._body = body
        self._metadata: Mapping[str, Any] = body["metadata"]
        self._uid: str = self._metadata.get("uid", "")
        self._generation: int = self._metadata.get("generation", 0)
        self._status: Mapping[str, Any] = body.get("status") or {}
        self._shown = conditions.shown_before(self._status)
        self._now = by.clock.wall()
        self.wrote: list[str] = []

    def look(self) -> Result:  # noqa: PLR0911 - a list of situations, each with its own answer
        """Look, store, write."""
        try:
            # Of the status only the sealed memory counts, so nothing else in it can be malformed.
            resource = ModelRollout.parse({**self._body, "status": None})
        except UsageError as error:
            if self._metadata.get("deletionTimestamp"):
                self._finalizer(False)
                return GONE
            return self._trouble(conditions.REFUSED, "Malformed", str(error))
        wanted = wanted_of(resource)
        router = self._by.routers(*self._key, resource.spec.template.deployment_mode)
        if self._metadata.get("deletionTimestamp"):
            return self._leave(resource, router, wanted)
        if self._finalizer(resource.spec.deletion_policy == "Restore"):
            return Result(0.0, tuple(self.wrote))
        try:
            kept = self._by.memories.read(
                self._key, self._uid, self._status, self._by.clock.monotonic()
            )
        except NotBelieved as error:
            return self._trouble(conditions.HELD, "NotBelieved", str(error))
        missing = sorted(set(resource.spec.analysis.enabled) - self._by.source.feeds)
        if missing:
            text = (
                f"the test '{missing[0]}' can't be fed here: the cluster tells nothing that it "
                "could be based on; turn it off."
            )
            return self._trouble(conditions.REFUSED, "TestNotFed", text)
        return self._decide(resource, router, wanted, kept)

    def _decide(self, resource: ModelRollout, router: Router, wanted: Wanted, kept: Kept) -> Result:
        live = router.read(wanted)
        candidate = Revision(
            version=wanted.version, digest=bare_digest(wanted.digest), uri=wanted.storage_uri
        )
        memory = recalled(kept.memory, candidate, live, self._now)
        spec = to_rollout_spec(resource, memory.stable)
        if live.refused and not memory.rollout.ended:
            return self._trouble(conditions.REFUSED, "NoSplit", live.refused)
        seen = observe(spec, live, self._source_for(memory, spec), Place(*self._key))
        step = next_step(spec, memory, live, seen, self._now)
        if step.trouble:
            return self._trouble(conditions.HELD, "NothingToDo", step.trouble)
        try:
            kept = self._store(kept, step, live, spec)
            refused = self._do(step, router, live, wanted)
            if not refused and kept.troubled_since is None and conditions.has_trouble(self._shown):
                self._write_memory(kept, step, live, spec)
        except KubeError:
            raise
        except DwcpError as error:
            return self._trouble(conditions.HELD, "NotStored", str(error))
        if refused:
            return self._trouble(conditions.HELD, "RouterRefused", refused)
        rollout = step.memory.rollout
        pace = self._by.pace
        after = pace.ended_seconds if rollout.ended else pace.look_seconds
        waits = rollout.reason if conditions.has_trouble(self._shown) else ""
        return Result(after, tuple(self.wrote), rollout.phase, seen.live_percent, waits)

    def _source_for(self, memory: Memory, spec: RolloutSpec) -> Source | None:
        """Return where counters come from; ``None`` once they decide nothing any more."""
        before = memory.rollout
        is_its_own = before.revision is not None and before.revision.digest == spec.candidate.digest
        return None if before.ended and is_its_own else self._by.source

    def _store(self, kept: Kept, step: Step, live: Live, spec: RolloutSpec) -> Kept:
        """Store what is to be remembered, if it is worth a write, before anything is done."""
        by = self._by
        needed, following = must_store(
            kept, step.memory, live.percent, by.pace, by.clock.monotonic()
        )
        if needed:
            return self._write_memory(following, step, live, spec)
        by.memories.keep(self._key, self._uid, following)
        return following

    def _write_memory(self, kept: Kept, step: Step, live: Live, spec: RolloutSpec) -> Kept:
        """Write down what is remembered; what was in the way no longer is, as far as is known."""
        by = self._by
        self._write_status(
            conditions.of_rollout(
                step.memory, by.sealer, self._uid, self._shown, live.percent, spec.shares, self._now
            )
        )
        stored = replace(
            kept, stored=step.memory, seal=self._shown.seal, stored_at=by.clock.monotonic()
        )
        by.memories.keep(self._key, self._uid, stored)
        self._tell_events(kept, step)
        return stored

    def _do(self, step: Step, router: Router, live: Live, wanted: Wanted) -> str:
        """Make at most one write to the InferenceService; return why it is refused, if it is."""
        if step.doing == "nothing":
            return ""
        try:
            if step.doing == "set":
                router.set(live, wanted, step.percent)
            elif step.doing == "promote":
                router.promote(live, wanted)
            elif step.doing == "drop":
                router.drop(live)
            else:
                self._by.api.delete(SERVICE, *self._key, resource_version=live.resource_version)
        except (Refused, Invalid) as error:
            return str(error)
        self.wrote.append("inferenceservice")
        return ""

    def _leave(self, resource: ModelRollout, router: Router, wanted: Wanted) -> Result:
        """Let the object go, when what it asks for at its end is done."""
        self._by.memories.forget(self._key)
        if finalizer.FINALIZER not in self._metadata.get("finalizers", ()):
            return GONE
        if resource.spec.deletion_policy == "Restore":
            live = router.read(wanted)
            if finalizer.is_under_way(live):
                now, most = self._by.clock.monotonic(), self._by.pace.trouble_seconds
                if live.refused or self._by.unclear.lasts(self._key, live, now, most):
                    return self._trouble(conditions.HELD, "NotRestored", finalizer.why_not(live))
                if live.percent is not None:
                    router.drop(live)
                    self.wrote.append("inferenceservice")
                return Result(self._by.pace.conflict_seconds, tuple(self.wrote))
        self._finalizer(False)
        return GONE

    def _finalizer(self, wanted: bool) -> bool:
        """Have our finalizer there, or not; return whether that took a write."""
        changed = finalizer.with_finalizer(self._body, wanted)
        if changed is None:
            return False
        self._by.api.replace(changed)
        self.wrote.append("finalizer")
        return True

    def _trouble(self, kind: str, reason: str, sentence: str) -> Result:
        """Say why it does not go on, once."""
        status = conditions.of_trouble(
            self._shown, kind, reason, sentence, self._generation, self._now
        )
        if status != self._shown.to_dict():
            self._write_status(status)
            self._tell(True, reason, sentence)
        phase = str(self._shown.phase or Phase.PENDING)
        return Result(self._by.pace.look_seconds, tuple(self.wrote), phase, trouble=sentence)

    def _write_status(self, status: dict[str, Any]) -> None:
        self._body = self._by.api.replace({**self._body, "status": status}, status=True)
        self._shown = conditions.shown_before(status)
        self.wrote.append("status")

    def _tell_events(self, kept: Kept, step: Step) -> None:
        before = kept.stored.rollout.events[-1:] if kept.stored is not None else ()
        events = step.memory.rollout.events
        first = events.index(before[0]) + 1 if before and before[0] in events else 0
        for event in events[first:]:
            back = event.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
            self._tell(back, event.phase, event.text)

    def _tell(self, warning: bool, reason: str, text: str) -> None:
        self._by.tell(Happening(self._key, self._uid, "ModelRollout", warning, str(reason), text))
