"""The controller on one machine: look, decide, store, write; until the rollout ends.

It may be killed at any point. The servers, Envoy and the traffic are its children and end with it;
``resume`` starts them again at the share that the status names, and goes on from the status.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import model_spec
from dwcp_ml.local_rollout.envoy import EnvoyProcess
from dwcp_ml.local_rollout.ground_truth import GroundTruthSource, read_losses
from dwcp_ml.local_rollout.replay import Question, Replay, questions
from dwcp_ml.local_rollout.servers import SERVE, SupervisedServer
from dwcp_ml.local_rollout.store import Look, Request, Store
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages, is_ready
from dwcp_ml.prediction_log.pairs import Arms, read_pairs
from dwcp_ml.rollout.decide import Write, decide
from dwcp_ml.rollout.drift import Drift, drift
from dwcp_ml.rollout.observation import ArmSample, Observation
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import Phase, RolloutStatus

LOOK_SECONDS: Final = 1.0

End = Literal["Promoted", "RolledBack", "Held"]

Watcher = Callable[[RolloutStatus, Observation], None]
"""Told of every look; the screen, say."""

PAIR_WAIT_SECONDS: Final = 3.0
"""How long after one arm's answer the other's may come."""


@dataclass
class Machine:
    """What runs on this machine for one rollout.

    Parameters
    ----------
    stable, candidate
        The servers.
    envoy
        In front of them.
    replay
        The traffic.
    truth
        What came true of it; ``None`` with the test off.
    """

    stable: SupervisedServer
    candidate: SupervisedServer
    envoy: EnvoyProcess
    replay: Replay
    truth: GroundTruthSource | None = None
    promoted: bool = False

    def observe(self, request: Request, store: Store, status: RolloutStatus) -> Observation:
        """Return what is seen now; what can't be seen is named."""
        spec = request.rollout
        for server in (self.stable, self.candidate):
            server.restart_if_crashed()
        live, router_error = None, ""
        try:
            live = self.envoy.read()
        except DwcpError as error:
            router_error = str(error)
        stable = spec.stable or spec.candidate
        seen = Observation(
            live_percent=live,
            router_error=router_error,
            stable=_arm(self.stable, spec.model, stable),
            candidate=_arm(self.candidate, spec.model, spec.candidate),
            promoted=self.promoted,
        )
        return self._with_requests_of_both(seen, request, store, status)

    def make(self, write: Write | None) -> str:
        """Do what the decision asks for; return what went wrong, empty if nothing."""
        if write is None:
            return ""
        if write.kind == "promote":
            # All traffic is at the candidate already, and no object names the stable here.
            self.promoted = True
            return ""
        try:
            self.envoy.set(write.percent)
        except DwcpError as error:
            return str(error)  # the next look finds what is live, and writes again
        return ""

    def _with_requests_of_both(
        self, seen: Observation, request: Request, store: Store, status: RolloutStatus
    ) -> Observation:
        """Return the observation with the requests that both arms answered, and their truths."""
        spec, now = request.rollout, time.time()
        if spec.stable is None or (spec.analysis.divergence is None and self.truth is None):
            return seen
        arms = Arms(
            model=spec.model,
            stable_log=store.predictions("stable"),
            candidate_log=store.predictions("candidate"),
            stable_version=spec.stable.version,
            candidate_version=spec.candidate.version,
            since=status.started_at,
            wait_seconds=PAIR_WAIT_SECONDS,
        )
        if spec.analysis.divergence is not None:
            try:
                joined = read_pairs(arms, status.pairs_cursor, now)
                seen = seen.replace(pairs=joined.pairs, pairs_cursor=joined.cursor)
            except DwcpError as error:
                seen = seen.replace(pairs_error=str(error))
        if self.truth is not None:
            delay = request.run.label_delay_seconds
            try:
                labelled = read_losses(self.truth, arms, status.ground_truth_cursor, now, delay)
                seen = seen.replace(
                    losses=labelled.losses,
                    ground_truth_cursor=labelled.cursor,
                    labels_pending=labelled.pending,
                )
            except DwcpError as error:
                seen = seen.replace(labels_error=str(error))
        return seen


def drive(
    store: Store, machine: Machine, *, limit_seconds: float, watcher: Watcher | None = None
) -> End:
    """Look and decide once a second until the rollout ends, or the time is up.

    Parameters
    ----------
    limit_seconds
        Then it is ``Held``: the status stays, and ``resume`` goes on.
    watcher
        Told of every look.
    """
    request, status = store.request(), store.status()
    spec = request.rollout
    deadline = time.monotonic() + limit_seconds
    while not status.ended:
        if time.monotonic() > deadline:
            return "Held"
        begun = time.monotonic()
        seen = machine.observe(request, store, status)
        status, write = decide(spec, status, seen, time.time())
        store.keep(status, _look(status, seen))
        machine.make(write)
        if watcher is not None:
            watcher(status, seen)
        time.sleep(max(0.0, LOOK_SECONDS - (time.monotonic() - begun)))
    return "Promoted" if status.phase is Phase.PROMOTED else "RolledBack"


@contextlib.contextmanager
def machine_of(
    store: Store, request: Request, commands: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Machine]:
    """Start both servers, Envoy at the share that the status names, and the traffic.

    Parameters
    ----------
    commands
        Arm -> what serves it, instead of ``dwcp-ml serve``; see ``SupervisedServer``.

    Raises
    ------
    DwcpError
        If one of them does not start.
    DataRefused
        If the telemetry can't be asked about.
    """
    run, spec = request.run, model_spec(request.rollout.model)
    asked = questions(spec, Path(run.telemetry))
    truth = truth_of(request, asked)
    with contextlib.ExitStack() as stack:
        servers = {
            arm: stack.enter_context(
                SupervisedServer(
                    Path(bundle),
                    log=store.logs / f"{arm}.log",
                    predictions=store.predictions(arm),
                    command=(commands or {}).get(arm, SERVE),
                )
            )
            for arm, bundle in (("stable", run.stable_bundle), ("candidate", run.candidate_bundle))
        }
        envoy = stack.enter_context(
            EnvoyProcess(
                [servers["stable"].address],
                [servers["candidate"].address],
                percent=store.status().target_percent,
                mirror_percent=run.mirror_percent,
            )
        )
        replay = stack.enter_context(Replay(envoy.address, spec, asked, run.requests_per_second))
        yield Machine(servers["stable"], servers["candidate"], envoy, replay, truth)


def truth_of(request: Request, asked: Sequence[Question]) -> GroundTruthSource | None:
    """Return what came true of the questions; ``None`` with the test off.

    Raises
    ------
    DataRefused, UsageError
        If the test can't be fed.
    """
    if request.rollout.analysis.ground_truth is None:
        return None
    run = request.run
    incidents = None if run.incidents is None else Path(run.incidents)
    return GroundTruthSource(
        model_spec(request.rollout.model), Path(run.telemetry), incidents, asked
    )


def _arm(server: SupervisedServer, model: str, revision: Revision) -> ArmSample:
    expected = Expected(model, revision.version, revision.digest)
    sample = MetricsPages([server.address], expected).read()
    ready = server.pid is not None and is_ready(server.address)
    return sample.replace(ready=ready, restarts=server.restarts)


def _look(status: RolloutStatus, seen: Observation) -> Look:
    return Look(
        at=status.last_reconciled or 0.0,
        phase=status.phase,
        target_percent=status.target_percent,
        live_percent=seen.live_percent,
        candidate_requests=status.exposed_requests,
        verdicts=status.verdicts,
        reason=status.cause.reason,
        message=status.cause.sentence,
        drift=drifts(seen),
    )


def drifts(seen: Observation) -> tuple[Drift, ...]:
    """Return how far the candidate's inputs and answers lie from the stable's; advice only."""
    if seen.stable is None or seen.candidate is None:
        return ()
    ours, theirs = seen.stable.sketches, seen.candidate.sketches
    return tuple(
        drift(name, theirs[name], ours[name])
        for name in sorted(ours.keys() & theirs.keys())
        if theirs[name].edges == ours[name].edges
    )
