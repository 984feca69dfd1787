"""The controller on one machine: observe, decide, store, apply; until the rollout ends.

It may be killed at any point. The servers, Envoy and the traffic end with it; ``resume`` starts
them again with the weight of the stored status, and continues from that status.
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
from dwcp_ml.local_rollout.replay import PredictRequest, Replay, predict_requests
from dwcp_ml.local_rollout.servers import SERVE, SupervisedServer
from dwcp_ml.local_rollout.store import RolloutRequest, Store
from dwcp_ml.metrics_sources.samples import Expected
from dwcp_ml.metrics_sources.scrape import MetricsPages, is_ready
from dwcp_ml.prediction_log.pairs import Arms, read_pairs
from dwcp_ml.rollout.decide import Write, decide
from dwcp_ml.rollout.drift import Drift, drift
from dwcp_ml.rollout.observation import ArmSample, Observation, Pair
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.rollout.timeline import Reconciliation

RECONCILE_SECONDS: Final = 1.0

End = Literal["Promoted", "RolledBack", "Held"]

Watcher = Callable[[RolloutStatus, Observation], None]
"""Called after every reconciliation, for instance to update the display."""

PAIR_WAIT_SECONDS: Final = 3.0
"""Maximum time between the responses of the two arms to one request."""


@dataclass
class Machine:
    """The processes and threads of one rollout on this machine.

    Parameters
    ----------
    ground_truth
        Outcomes of its requests; ``None`` if the ground-truth test is off.
    """

    stable: SupervisedServer
    candidate: SupervisedServer
    envoy: EnvoyProcess
    replay: Replay
    ground_truth: GroundTruthSource | None = None
    promoted: bool = False
    failed_copies: int = 0
    """Mirrored copies that the candidate has not answered with a prediction, so far."""

    def observe(self, request: RolloutRequest, store: Store, status: RolloutStatus) -> Observation:
        """Return the current observation; what could not be read is in its error fields."""
        spec = request.rollout
        for server in (self.stable, self.candidate):
            server.restart_if_crashed()
        live, router_error = None, ""
        try:
            live = self.envoy.read()
        except DwcpError as error:
            router_error = str(error)
        stable = spec.stable or spec.candidate
        observation = Observation(
            live_percent=live,
            router_error=router_error,
            stable=_arm(self.stable, spec.model, stable),
            candidate=_arm(self.candidate, spec.model, spec.candidate),
            promoted=self.promoted,
        )
        return self._with_requests_of_both(observation, request, store, status)

    def _unanswered(self, observation: Observation) -> list[Pair]:
        """Return a pair for each new copy that failed: it is in no log of the candidate.

        Those that met no server, because it was being restarted, say nothing of its predictions.
        """
        counts = self.envoy.responses().get("mirror", {})
        failed = counts.get("4xx", 0) + counts.get("5xx", 0)
        new, self.failed_copies = max(failed - self.failed_copies, 0), failed
        if observation.candidate is None or not observation.candidate.ready:
            new = 0
        return [Pair(request_id="unanswered", difference=1.0)] * new

    def apply(self, write: Write | None) -> str:
        """Apply the write of a decision; return the error, empty if there was none."""
        if write is None:
            return ""
        if write.kind == "promote":
            # The candidate has all traffic already, and no object names the stable here.
            self.promoted = True
            return ""
        try:
            self.envoy.set(write.percent)
        except DwcpError as error:
            return str(error)  # the next reconciliation reads the live weight and writes again
        return ""

    def _with_requests_of_both(
        self, observation: Observation, request: RolloutRequest, store: Store, status: RolloutStatus
    ) -> Observation:
        """Return the observation with the pairs of predictions, and their losses."""
        spec, now = request.rollout, time.time()
        if spec.stable is None or (spec.analysis.divergence is None and self.ground_truth is None):
            return observation
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
                observation = observation.replace(
                    are_compared=True, pairs=(*joined.pairs, *self._unanswered(observation)),
                    pairs_record=request.run.record, pairs_cursor=joined.cursor,
                )  # fmt: skip
            except DwcpError as error:
                observation = observation.replace(are_compared=True, pairs_error=str(error))
        if self.ground_truth is not None:
            delay = request.run.label_delay_seconds
            try:
                labelled = read_losses(
                    self.ground_truth, arms, status.ground_truth_cursor, now, delay
                )
                observation = observation.replace(
                    losses=labelled.losses,
                    ground_truth_cursor=labelled.cursor,
                    labels_pending=labelled.pending,
                )
            except DwcpError as error:
                observation = observation.replace(labels_error=str(error))
        return observation


def drive(
    store: Store, machine: Machine, *, limit_seconds: float, watcher: Watcher | None = None
) -> End:
    """Reconcile once a second until the rollout ends, or the time limit has passed.

    Parameters
    ----------
    limit_seconds
        Then ``Held`` is returned; ``resume`` continues from the stored status.
    """
    request, status = store.request(), store.status()
    spec = request.rollout
    deadline = time.monotonic() + limit_seconds
    while not status.ended:
        if time.monotonic() > deadline:
            return "Held"
        started = time.monotonic()
        observation = machine.observe(request, store, status)
        status, write = decide(spec, status, observation, time.time())
        store.save(status, _reconciliation(status, observation))
        machine.apply(write)
        if watcher is not None:
            watcher(status, observation)
        time.sleep(max(0.0, RECONCILE_SECONDS - (time.monotonic() - started)))
    return "Promoted" if status.phase is Phase.PROMOTED else "RolledBack"


@contextlib.contextmanager
def start_machine(
    store: Store, request: RolloutRequest, commands: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Machine]:
    """Start both servers, Envoy with the weight of the status, and the traffic.

    Parameters
    ----------
    commands
        Arm -> command of its server, by default ``dwcp-ml serve``; see ``SupervisedServer``.

    Raises
    ------
    DwcpError
        If one of them does not start.
    DataRefused
        If no requests can be made from the telemetry.
    """
    run, spec = request.run, model_spec(request.rollout.model)
    requests = predict_requests(spec, Path(run.telemetry))
    ground_truth = ground_truth_source(request, requests)
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
        replay = stack.enter_context(Replay(envoy.address, spec, requests, run.requests_per_second))
        yield Machine(servers["stable"], servers["candidate"], envoy, replay, ground_truth)


def ground_truth_source(
    request: RolloutRequest, requests: Sequence[PredictRequest]
) -> GroundTruthSource | None:
    """Return the outcomes of the requests; ``None`` if the ground-truth test is off.

    Raises
    ------
    DataRefused, UsageError
        If the test would never get data.
    """
    if request.rollout.analysis.ground_truth is None:
        return None
    run = request.run
    incidents = None if run.incidents is None else Path(run.incidents)
    return GroundTruthSource(
        model_spec(request.rollout.model), Path(run.telemetry), incidents, requests
    )


def _arm(server: SupervisedServer, model: str, revision: Revision) -> ArmSample:
    expected = Expected(model, revision.version, revision.digest)
    sample = MetricsPages([server.address], expected).read()
    ready = server.pid is not None and is_ready(server.address)
    return sample.replace(ready=ready, restarts=server.restarts)


def _reconciliation(status: RolloutStatus, observation: Observation) -> Reconciliation:
    return Reconciliation(
        at=status.last_reconciled or 0.0,
        phase=status.phase,
        target_percent=status.target_percent,
        live_percent=observation.live_percent,
        candidate_requests=status.exposed_requests,
        verdicts=status.verdicts,
        reason=status.cause.reason,
        message=status.cause.sentence,
        drift=drifts(observation),
    )


def drifts(observation: Observation) -> tuple[Drift, ...]:
    """Return the drift of the candidate's inputs and predictions from the stable's; advisory."""
    if observation.stable is None or observation.candidate is None:
        return ()
    ours, theirs = observation.stable.sketches, observation.candidate.sketches
    return tuple(
        drift(name, theirs[name], ours[name])
        for name in sorted(ours.keys() & theirs.keys())
        if theirs[name].edges == ours[name].edges
    )
