"""Rollouts in lockstep meet the traffic of the simulation, and are decided as ``decide`` does."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rollout_scenarios import EQUAL, WORSE
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
from dwcp_ml.rollout.spec import GroundTruthTest, any_rollout
from dwcp_ml.rollout.status import Phase, RolloutStatus
from tests.matrix import few


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


def replayed(traffic, *, rollouts=3, ticks=150, seconds=10.0, seed=5, **settings):
    """Return all reasons that were met; fails where the two decide differently."""
    step = {"minimum_requests": 200, "dwell_seconds": 60.0}
    steps = [{"traffic_percent": share, **step} for share in (1, 5, 25, 50, 100)]
    spec = any_rollout({"steps": steps, "watch_seconds": 150.0, **settings})
    replay = Replay(spec, traffic, rollouts, seed, seconds)
    for _ in range(ticks):
        if not replay.run.ids.size:
            break
        replay.tick()
    return replay.reasons


def traffic_of(name):
    return {**EQUAL, **WORSE}[name].traffic


SURE = {
    "everything fails": {Reason.TEST_FAILED},
    "everything is 4xx": {Reason.TEST_FAILED},
    "p99 ×2": {Reason.TEST_FAILED},
    "errors ×5": {Reason.TEST_FAILED},
    "at 100 %: everything fails": {Reason.STEP_PASSED, Reason.TEST_FAILED},
}
"""Scenarios -> reasons that their rollouts are sure to meet."""

LONGER = {
    "iid, 2 % errors": {Reason.INSUFFICIENT_EVIDENCE},
    "cold pods, 2 slow answers": {Reason.STEP_PASSED},
    "retries": {Reason.INSUFFICIENT_EVIDENCE},
    "shared bursts": {Reason.INSUFFICIENT_EVIDENCE},
    "pods differ in errors, 1 and 10 pods": {Reason.INSUFFICIENT_EVIDENCE},
    "node speed, 3 and 3 pods": {Reason.STEP_PASSED},
    "ramp": {Reason.PROMOTED},
    "2 % take seconds": {Reason.INSUFFICIENT_EVIDENCE},
    "at 100 %: all slow": {Reason.STEP_PASSED, Reason.TEST_FAILED},
    "at 100 %: 1 % errors": {Reason.STEP_PASSED, Reason.WATCHING},
}


@pytest.mark.parametrize("name", few(SURE, "errors ×5"))
def test_the_same_counters_lead_to_the_same_decisions(name):
    assert replayed(traffic_of(name), ticks=130) >= SURE[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", LONGER)
def test_the_same_decisions_over_longer_times(name):
    assert replayed(traffic_of(name), rollouts=2) >= LONGER[name]


@pytest.mark.slow
def test_the_same_pods_are_odd():
    """Whoever changes the rule about pods in ``evidence.pods`` changes it here, too."""
    traffic = traffic_of("pinned clients, 3 and 3 pods")
    met = replayed(traffic, rollouts=2, ticks=120, seed=5)
    assert met >= {Reason.PODS_DIFFER, Reason.TEST_FAILED}


def test_the_same_decisions_in_an_outage():
    pods = Pods(stable=3, candidate=3, outage_every=120.0, outage_seconds=20.0)
    traffic = Traffic(stable_errors=0.02, candidate_errors=0.02, pods=pods)
    replayed(traffic, rollouts=2, ticks=60)


def test_the_same_decisions_where_almost_everything_fails():
    """θs plus the margin is not below 1: the tests on errors that have a margin say nothing."""
    traffic = Traffic(stable_errors=0.998, candidate_errors=0.998, slower=1.2)
    assert Reason.INSUFFICIENT_EVIDENCE in replayed(traffic, rollouts=2, ticks=40)


def test_the_same_decisions_without_warm_up():
    pods = Pods(candidate=5, candidate_at_start=1, cold_answers=2, cold_slower=None)
    settings = {"analysis": {"warm_up_seconds": 0.0}}
    replayed(Traffic(pods=pods), rollouts=2, ticks=40, **settings)


def test_the_same_decisions_while_new_pods_wait_for_their_first_request():
    pods = Pods(candidate=9, candidate_at_start=1, scale_up_seconds=20.0)
    steps = [
        {"traffic_percent": share, "minimum_requests": 50, "dwell_seconds": 0.0}
        for share in (40, 100)
    ]
    traffic = Traffic(requests_per_second=1.0, rejected=0.1, pods=pods)
    settings = {"steps": steps, "analysis": {"warm_up_requests": 0}}
    met = replayed(traffic, rollouts=2, ticks=50, **settings)
    assert Reason.INSUFFICIENT_REQUESTS in met


def test_the_same_decisions_where_the_stable_often_has_no_request():
    """Blocks of one arm alone: the watch stands in below all traffic, and starts over."""
    loose = {"error_rate": {"margin": 0.5}, "latency": {"margin": 0.5}}
    traffic = Traffic(requests_per_second=0.6, candidate_errors=0.05)
    steps = [
        {"traffic_percent": share, "minimum_requests": 5, "dwell_seconds": 0.0}
        for share in (50, 90, 100)
    ]
    met = replayed(traffic, ticks=160, seconds=7.0, steps=steps, analysis=loose)
    assert met >= {Reason.WATCHING, Reason.NO_TRAFFIC}


MOVING = {
    "retries": Traffic(stable_errors=0.02, candidate_errors=0.04, pods=Pods(attempts=3)),
    "cold, failing": Traffic(
        pods=Pods(candidate=4, candidate_at_start=2, cold_answers=9, cold_slower=None)
    ),
    "cold, slow": Traffic(
        pods=Pods(candidate=3, candidate_at_start=1, cold_answers=9, speed_spread=0.2)
    ),
    "outages": Traffic(pods=Pods(stable=2, candidate=3, outage_every=70.0, outage_seconds=9.0)),
    "clients": Traffic(pods=Pods(stable=2, candidate=3, clients=40, failing_clients=3)),
    "pods that differ": Traffic(
        stable_errors=0.05, candidate_errors=0.05, pods=Pods(error_spread=0.5, speed_spread=0.3)
    ),
    "all harm": Traffic(
        candidate_errors=0.1, stuck=0.05, rejected=0.3, slower=1.5, harm_after_seconds=140.0
    ),
    "harm at 100 %": Traffic(candidate_errors=0.1, harm_from_percent=100),
    "bursts": Traffic(stable_errors=0.02, candidate_errors=0.02, shape="bursts"),
    "ramp": Traffic(shape="ramp", pods=Pods(stable=2)),
    "diurnal": Traffic(shape="diurnal"),
}
SHARES = [0] * 3 + [30] * 20 + [100] * 12
SECONDS = 7.0
"""Between two reconciliations; no minute is a multiple of it."""


def counted(pods, stable):
    """Return requests, errors, rejections and some latencies of both arms as one array."""
    places = [places for places, edge in enumerate(EDGES) if 0.0015 < edge < 0.1][::3]
    parts = []
    for arm in (pods[:stable], pods[stable:]):
        parts += [sum(each[part] for each in arm) for part in range(3)]
        parts += [sum(each[3][place] for each in arm) for place in [*places, -1]]
    return parts


def counted_by_the_environment(traffic, seed):
    environment = SimulatedEnvironment(any_rollout(), traffic, np.random.default_rng(seed))
    for share in SHARES:
        environment.live_percent = share
        environment.pass_time(SECONDS)
    pods = environment._pods.all
    none = [0] * (len(EDGES) + 1)
    counts = [(pod.requests, pod.errors, pod.rejected, pod.latency or none) for pod in pods]
    return [*counted(counts, traffic.pods.stable), environment.harm_began[1]]


def counted_in_lockstep(traffic, rollouts):
    lockstep = LockstepTraffic(traffic, rollouts, np.random.default_rng(1))
    total = [0, 0, 0, 0]
    for share in SHARES:
        lockstep.live[:] = share
        drawn = lockstep.pass_time(SECONDS)
        new = drawn.requests, drawn.errors, drawn.rejected, np.cumsum(drawn.latency, axis=2)
        total = [before + each for before, each in zip(total, new, strict=True)]
    rows = [
        counted([tuple(part[row, pod] for part in total) for pod in range(total[0].shape[1])],
                traffic.pods.stable)
        for row in range(rollouts)
    ]  # fmt: skip
    return np.column_stack([rows, lockstep.harm_before])


@pytest.mark.parametrize("name", few(MOVING, "cold, slow", "all harm", "diurnal"))
def test_the_counters_are_distributed_as_those_of_the_environment(name):
    traffic = MOVING[name]
    ours = counted_in_lockstep(traffic, 150)
    its = np.asarray([counted_by_the_environment(traffic, seed) for seed in range(60)])
    spread = np.sqrt(ours.var(axis=0) / len(ours) + its.var(axis=0) / len(its))
    differences = np.abs(ours.mean(axis=0) - its.mean(axis=0))
    assert (differences <= 4.5 * spread + 1e-9).all(), differences / (spread + 1e-9)
    both = (ours.std(axis=0) > 3.0) & (its.std(axis=0) > 3.0)
    ratios = ours.std(axis=0)[both] / its.std(axis=0)[both]
    assert (ratios > 0.6).all()
    assert (ratios < 1.6).all()


def test_outcomes_are_those_of_the_simulation():
    scenario = WORSE["everything fails"]
    spec, traffic, limit = scenario.spec(60.0), scenario.traffic, 3600.0
    ours = list(simulate_in_lockstep(spec, traffic, 300, limit_seconds=limit))
    for its in simulate(spec, traffic, 4, limit_seconds=limit):
        like = [each for each in ours if each.seconds == its.seconds]
        assert its.end == like[0].end
        assert its.percent == like[0].percent
        assert its.harm_seconds == like[0].harm_seconds
        assert its.cause.reason is like[0].cause.reason
        assert its.cause.test == like[0].cause.test
        exposed = [each.exposed_requests for each in like]
        assert min(exposed) - 9 <= its.exposed_requests <= max(exposed) + 9
        assert its.harmed_requests == its.exposed_requests
        assert all(each.harmed_requests == each.exposed_requests for each in like)


def test_the_same_seed_draws_the_same_rollouts_and_another_does_not():
    spec, traffic = any_rollout(), Traffic(candidate_errors=0.2)
    first, again, other = (
        list(simulate_in_lockstep(spec, traffic, 5, seed=seed, limit_seconds=900.0))
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_rollout_that_stays_at_a_step_is_held():
    scenario = replace(WORSE["errors ×20"], stays_at=1, traffic=Traffic())
    for each in simulate_in_lockstep(scenario.spec(0.0), scenario.traffic, 3, limit_seconds=300.0):
        assert (each.end, each.seconds, each.percent) == ("Held", 300.0, 1)
        assert each.cause.reason in {Reason.DWELLING, Reason.INSUFFICIENT_REQUESTS}
        assert each.differing_seconds == 0.0
        assert each.harm_seconds == 290.0  # the first tick has no traffic


@pytest.mark.slow
def test_it_says_how_long_pods_that_differ_have_held_a_rollout():
    traffic = traffic_of("pinned clients, 3 and 3 pods")
    outcomes = simulate_in_lockstep(any_rollout(), traffic, 12, limit_seconds=1800.0)
    held = [each for each in outcomes if each.cause.reason is Reason.PODS_DIFFER]
    assert held
    assert all(0.0 < each.differing_seconds < 1800.0 for each in held)


@pytest.mark.parametrize(
    ("traffic", "settings"),
    [
        (Traffic(divergence=0.1), {}),
        (Traffic(labelled_share=0.1), {}),
        (Traffic(pods=Pods(candidate=70)), {}),
        (Traffic(), {"paused": True}),
        (Traffic(), {"analysis": {"latency": None}}),
        (Traffic(), {"analysis": {"ground_truth": GroundTruthTest()}}),
    ],
)
def test_what_is_left_out_is_refused(traffic, settings):
    with pytest.raises(UsageError):
        list(simulate_in_lockstep(any_rollout(settings), traffic, 1))
