"""Rollouts in lockstep meet the traffic of the simulation, and are decided as ``decide`` does."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rollout_scenarios import EQUAL, ONE_EACH, WORSE
from benchmarks.vectorized.decisions import PHASES, REASONS, TESTS, WRITES
from benchmarks.vectorized.rollouts import Lockstep, simulate_in_lockstep
from benchmarks.vectorized.traffic import LockstepTraffic
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.rollout.decide import decide
from dwcp_ml.rollout.evidence.error_rate import log_mean
from dwcp_ml.rollout.observation import ArmSample, Histogram, Observation, ReplicaSample
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.simulated_environment import EDGES, SimulatedEnvironment, Traffic
from dwcp_ml.rollout.simulated_pods import Pods
from dwcp_ml.rollout.simulation import simulate
from dwcp_ml.rollout.spec import DivergenceTest, any_rollout
from dwcp_ml.rollout.status import Phase, RolloutStatus


class Replay:
    """One run in lockstep, whose counters ``decide`` gets, too, one rollout after another."""

    def __init__(self, spec, traffic, rollouts, seed, seconds):
        self.spec, self.seconds, self.reasons = spec, seconds, set()
        self.run = Lockstep(spec, traffic, rollouts, np.random.default_rng(seed))
        self.statuses = {place: RolloutStatus() for place in range(rollouts)}
        self.counts, self.started = None, {}

    def tick(self):
        decisions, ids = self.run.decisions, self.run.ids
        before = [
            (int(live), PHASES[phase] is Phase.PROMOTING)
            for live, phase in zip(decisions.live, decisions.phase, strict=True)
        ]
        drawn = self.run.tick(self.seconds)
        new = [drawn.requests, drawn.errors, drawn.rejected, np.cumsum(drawn.latency, axis=2)]
        self.counts = new if self.counts is None else list(map(np.add, self.counts, new))
        now = self.run.traffic.now
        for row, each in enumerate(ids.tolist()):
            observation = self.observation(row, each, drawn.running[row], *before[row])
            status, write = decide(self.spec, self.statuses[each], observation, now)
            self.statuses[each] = status
            self.reasons.add(status.cause.reason)
            self.compare(row, status, write)
        ended = decisions.ended
        self.run.keep(~ended)
        self.counts = [each[~ended] for each in self.counts]

    def observation(self, row, each, running, live, promoted):
        """Return what an adapter would have read of one rollout."""
        arms = {"stable": [], "candidate": []}
        stable = self.run.traffic.traffic.pods.stable
        for pod in np.flatnonzero(running).tolist():
            requests, errors, rejected, latency = (part[row, pod].tolist() for part in self.counts)
            arm = "stable" if pod < stable else "candidate"
            is_first = self.run.seconds <= self.seconds
            start = self.run.traffic.start if is_first else self.run.traffic.now - self.seconds
            arms[arm].append(
                ReplicaSample(
                    replica=f"{arm}-{pod if pod < stable else pod - stable}",
                    started_at=self.started.setdefault((each, pod), start),
                    requests=requests,
                    errors=errors,
                    rejected=rejected,
                    latency=Histogram(edges=EDGES, counts=tuple(latency)),
                )
            )
        samples = {
            arm: ArmSample(version=arm, digest=revision.digest, replicas=tuple(arms[arm]))
            for arm, revision in (("stable", self.spec.stable), ("candidate", self.spec.candidate))
        }
        return Observation(live_percent=live, promoted=promoted, **samples)

    def compare(self, row, status, write):
        decisions = self.run.decisions
        test = decisions.test[row]
        ours = {
            "phase": PHASES[decisions.phase[row]],
            "weight": decisions.live[row],
            "passed": decisions.passed[row],
            "reason": REASONS[decisions.reason[row]],
            "test": TESTS[test] if test >= 0 else "",
            "write": WRITES[decisions.write[row]],
        }
        its = {
            "phase": status.phase,
            "weight": status.target_percent,
            "passed": status.passed_percent,
            "reason": status.cause.reason,
            "test": status.cause.test,
            "write": write and write.kind,
        }
        assert ours == its, f"after {self.run.seconds} s"
        if status.ended:
            return
        assert decisions.exposed[row] == status.exposed_requests
        assert decisions.step_requests[row] == status.step_requests
        assert decisions.step_elapsed[row] == pytest.approx(status.step_elapsed)
        assert decisions.watch_elapsed[row] == pytest.approx(status.watch_elapsed)
        for name, found, wanted in self.evidence(row, status.evidence):
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-6), name

    def evidence(self, row, its):
        """Yield the name of each log E, ours, and that of the scalar evidence."""
        rates, watches = self.run.decisions.rates, self.run.decisions.watches
        log_promotion = rates.log_promotion(np.asarray([row]))[0]
        parts = its.error_rate, its.rejection_rate, its.latency.slow, its.latency.tail
        for place, part in enumerate(parts):
            yield f"harm {place}", rates.log_harm[row, place], part.harm.log_e
            promotion = part.promotion.verdict(0.05)
            log_e = math.log(promotion.evidence)
            yield f"promotion {place}", log_promotion[place], log_e
        for place, watch in enumerate((its.watch, its.watch_latency)):
            assert watches.known[row, place] == (watch is not None)
            if watch is not None:
                yield "bound", watches.bounds[row, place], watch.bound
                yield "blocks", watches.blocks[row, place], watch.blocks
                yield "newest", watches.newest[row, place], watch.newest
                yield "watch", watches.log_e[row, place], log_mean(watch.log_detectors)


def replayed(traffic, *, rollouts=3, ticks=150, seconds=10.0, seed=5, dwell=60.0, **settings):
    """Return all reasons that were met; fails where the two decide differently."""
    step = {"minimum_requests": 200, "dwell_seconds": dwell}
    steps = [{"traffic_percent": share, **step} for share in (1, 5, 25, 50, 100)]
    spec = any_rollout({"steps": steps, "watch_seconds": 150.0, **settings})
    replay = Replay(spec, traffic, rollouts, seed, seconds)
    for _ in range(ticks):
        if not replay.run.ids.size:
            break
        replay.tick()
    return replay.reasons


ALMOST_ALL_FAIL = Traffic(stable_errors=0.995, candidate_errors=0.995)
SOME_OF = {
    "iid, 2 % errors": {Reason.PROMOTED},
    "cold pods, 2 slow answers": {Reason.PROMOTED},
    "cold pods, 2 failing answers": {Reason.STEP_PASSED},
    "retries": {Reason.STEP_PASSED},
    "outages of a pod, 3 and 3 pods": {Reason.STEP_PASSED},
    "shared bursts": {Reason.STEP_PASSED},
    "pods differ in errors, 1 and 10 pods": {Reason.STEP_PASSED},
    "pinned clients, 1 and 1 pods": {Reason.TEST_FAILED},
    "pinned clients, 3 and 3 pods": {Reason.PODS_DIFFER},
    "node speed, 3 and 3 pods": {Reason.STEP_PASSED},
    "ramp": {Reason.STEP_PASSED},
    "2 requests/s": {Reason.INSUFFICIENT_REQUESTS},
    "errors ×5": {Reason.TEST_FAILED},
    "everything fails": {Reason.TEST_FAILED},
    "p99 ×2": {Reason.TEST_FAILED},
    "2 % take seconds": {Reason.TEST_FAILED},
    "everything is 4xx": {Reason.TEST_FAILED},
    "at 100 %: all slow": {Reason.WATCHING, Reason.TEST_FAILED},
    "at 100 %: 1 % errors": {Reason.WATCHING, Reason.TEST_FAILED},
}
"""Scenarios -> reasons that their rollouts are sure to meet."""


@pytest.mark.parametrize("name", SOME_OF)
def test_the_same_counters_lead_to_the_same_decisions(name):
    assert replayed({**EQUAL, **WORSE}[name].traffic) >= SOME_OF[name]
