"""The rules of other tools do what their documentation says, good and bad."""

import math

import numpy as np
import pytest

from benchmarks.rules import argo, kayenta
from benchmarks.rules.argo import Argo, assess
from benchmarks.rules.flagger import Flagger
from benchmarks.rules.kayenta import Kayenta, classify, score, shift
from benchmarks.rules.points import Limits, Minutes, quantile
from benchmarks.rules.rows import OURS, STABLE_P99_SECONDS, equal_rows, fault_rows
from dwcp_ml.rollout.observation import (
    ArmSample,
    GroundTruthLoss,
    Histogram,
    Observation,
    ReplicaSample,
)
from dwcp_ml.rollout.simulated_environment import Traffic
from dwcp_ml.rollout.simulation import run_once
from dwcp_ml.rollout.spec import Revision, RolloutSpec
from dwcp_ml.rollout.status import Phase, RolloutStatus

SPEC = RolloutSpec(
    model="m",
    candidate=Revision(version="2", digest="b" * 64),
    stable=Revision(version="1", digest="a" * 64),
)
LIMITS = Limits(success=0.99, p99_seconds=0.01)
NONE = Traffic(requests_per_second=0.0)


def run(rule, traffic=None, hours=24.0):
    return run_once(
        SPEC,
        traffic or Traffic(stable_errors=0.0, candidate_errors=0.0),
        7,
        reconcile_seconds=60.0,
        limit_seconds=hours * 3600.0,
        rule=rule,
    )


def sample(requests, errors, seconds=0.002):
    counts = tuple(requests if edge >= seconds else 0 for edge in (0.001, 0.005, 0.02, math.inf))
    latency = Histogram(edges=(0.001, 0.005, 0.02), counts=counts)
    return ArmSample(
        version="2",
        replicas=(
            ReplicaSample(
                replica="r", started_at=0.0, requests=requests, errors=errors, latency=latency
            ),
        ),
    )


class Story:
    """Drives a rule by hand: what the canary counts in each minute."""

    def __init__(self, rule):
        self.rule, self.status, self.percent = rule, RolloutStatus(), 0
        self.requests = self.errors = 0
        self.now = 0.0

    def minute(self, requests=60, errors=0, error=""):
        self.now += 60.0
        self.requests += requests
        self.errors += errors
        candidate = sample(self.requests, self.errors)
        seen = Observation(
            live_percent=self.percent,
            stable=sample(100 * int(self.now), 0),
            candidate=candidate.replace(error=error),
        )
        self.status, write = self.rule(SPEC, self.status, seen, self.now)
        self.percent = write.percent if write else self.percent
        return self.percent


def test_flagger_rises_a_step_with_every_good_minute():
    story = Story(Flagger(LIMITS))
    assert [story.minute() for _ in range(5)] == [1, 5, 25, 50, 100]
    assert story.status.phase is Phase.PROMOTED


def test_one_good_minute_is_enough_however_few_its_requests():
    story = Story(Flagger(LIMITS))
    assert [story.minute(requests=1) for _ in range(2)] == [1, 5]


def test_flagger_takes_back_at_the_fifth_failed_check_and_never_forgets_one():
    story = Story(Flagger(LIMITS))
    story.minute()
    for good in (False, False, True, False, False, True, False):
        assert story.status.phase is not Phase.ROLLED_BACK
        story.minute(errors=0 if good else 6)
    assert story.status.phase is Phase.ROLLED_BACK
    assert "5 failed checks" in story.status.cause.detail


def test_flagger_takes_back_a_healthy_canary_without_metrics():
    outcome = run(Flagger(LIMITS), NONE)
    assert outcome.end == "RolledBack"
    assert outcome.seconds == pytest.approx(6 * 60.0)


@pytest.mark.parametrize(
    ("measurements", "count", "ended", "phase"),
    [
        ([], None, True, "Successful"),
        ([], 5, False, "Running"),
        (["Successful"] * 5, 5, False, "Successful"),
        (["Successful", "Failed"], 5, False, "Failed"),
        (["Error"] * 4, 5, False, "Running"),
        (["Error"] * 5, 5, False, "Error"),
        (["Error"] * 4 + ["Successful"] + ["Error"] * 4, None, False, "Running"),
    ],
)
def test_the_phase_of_an_analysis(measurements, count, ended, phase):
    assert assess(measurements, count, ended) == phase


def test_argo_pauses_and_measures_five_times_at_every_step():
    outcome = run(Argo(LIMITS))
    assert outcome.end == "Promoted"
    minutes_a_step = argo.PAUSE_SECONDS / 60 + argo.COUNT - 1
    assert outcome.seconds == pytest.approx(60.0 * (1 + 4 * minutes_a_step))


def test_argo_takes_back_at_the_first_failed_measurement():
    story = Story(Argo(LIMITS))
    for _ in range(5):
        story.minute(errors=6)  # in the pause nothing is measured
    assert story.status.phase is Phase.PROGRESSING
    story.minute(errors=6)
    assert story.status.phase is Phase.ROLLED_BACK


def test_argo_fails_without_traffic_because_nan_meets_no_condition():
    assert run(Argo(LIMITS), NONE).end == "RolledBack"


def test_argo_ends_in_error_when_the_metrics_are_out_for_the_fifth_time():
    story = Story(Argo(LIMITS))
    for _ in range(9):
        story.minute(error="refused")
    assert story.status.phase is Phase.PROGRESSING
    story.minute(error="refused")
    assert "analysis Error" in story.status.cause.detail


def test_argo_passes_without_a_measurement():
    dead = Traffic(stable_errors=0.0, candidate_errors=1.0)
    outcome = run(Argo(LIMITS, background=True, initial_delay=3600.0), dead)
    assert outcome.end == "Promoted"
    assert "Successful" in outcome.cause.detail
    assert run(Argo(LIMITS, background=True), dead).end == "RolledBack"


def test_kayenta_scores_100_without_data_and_promotes():
    assert classify([math.nan] * 60, [0.1] * 60) == "Nodata"
    assert score({"errors": "Nodata", "latency": "Nodata"}) == 100.0
    outcome = run(Kayenta(LIMITS), NONE)
    assert outcome.end == "Promoted"
    assert outcome.seconds == pytest.approx(60.0 * (1 + 4 * kayenta.POINTS))


def test_kayenta_judges_after_an_hour_and_one_high_metric_fails_it():
    outcome = run(Kayenta(LIMITS), Traffic(slower=3.0))
    assert outcome.end == "RolledBack"
    assert outcome.seconds == pytest.approx(61 * 60.0)
    assert outcome.cause.detail == "score 50 at 1 % (fail): latency."


def test_the_shift_is_that_of_the_ranks():
    rng = np.random.default_rng(1)
    one, other = rng.normal(3.0, 1.0, 60), rng.normal(1.0, 1.0, 60)
    lower, estimate = shift(one, other)
    assert lower < estimate == pytest.approx(2.0, abs=0.3)
    assert classify(one.tolist(), other.tolist()) == "High"
    assert classify(other.tolist(), one.tolist()) == "Pass"
    assert classify([0.0] * 60, [0.0] * 60) == "Pass"


def test_the_bound_is_too_high_in_one_percent():
    rng = np.random.default_rng(2)
    above = [shift(rng.normal(size=60), rng.normal(size=60))[0] > 0 for _ in range(1500)]
    assert 0.003 < np.mean(above) < 0.02


def test_a_quantile_is_linear_within_its_bucket():
    edges = (1.0, 2.0, 4.0)
    assert quantile(edges, (0, 100, 0, 0), 0.99) == pytest.approx(1.99)
    assert quantile(edges, (50, 0, 50, 0), 0.75) == pytest.approx(3.0)
    assert quantile(edges, (0, 0, 0, 9), 0.99) == 4.0
    assert math.isnan(quantile(edges, (0, 0, 0, 0), 0.99))


def test_points_are_of_one_minute_whatever_the_looks():
    minutes, losses = Minutes(), []
    for look in range(13):
        truth = GroundTruthLoss(request_id=str(look), stable=0.1, candidate=0.2)
        seen = Observation(
            live_percent=1,
            stable=sample(100 * look, 0),
            candidate=sample(10 * look, look),
            losses=(truth,) if look else (),
        )
        points = minutes.add(seen, 10.0 * look)
        assert (points is not None) == (look in (6, 12))
        if points is not None:
            losses.append(points["candidate"].loss)
            assert (points["candidate"].requests, points["candidate"].errors) == (60, 6)
            assert points["candidate"].success == pytest.approx(0.9)
            assert points["stable"].requests == 600
    assert losses == pytest.approx([0.2, 0.2])


def test_a_rule_begins_every_rollout_without_a_memory():
    rule = Flagger(LIMITS)
    bad = Traffic(candidate_errors=0.5)
    assert run(rule, bad) == run(rule, bad)
    assert rule.failed == 0


def test_the_rows_are_the_worlds_that_are_promised():
    equal, faults = equal_rows(), fault_rows()
    assert len(equal) == 4 * 3 + 1
    assert len(faults) == 2 * 3 + 3 + 3
    for row in equal:
        traffic = row.traffic
        assert traffic.candidate_errors == traffic.stable_errors
        assert (traffic.slower, traffic.candidate_loss) == (1.0, traffic.stable_loss)
    assert all(next(iter(row.rules())) == OURS for row in [*equal, *faults])
    assert set(equal[-2].rules()) > {"Flagger, limit 96%", "Flagger", "Kayenta"}
    assert set(equal[0].rules()) == {OURS, "Flagger", "Argo Rollouts", "Kayenta"}


def test_the_lab_knows_the_stables_p99():
    rng = np.random.default_rng(3)
    drawn = rng.lognormal(math.log(0.002), 0.35, 400_000)
    assert np.quantile(drawn, 0.99) == pytest.approx(STABLE_P99_SECONDS, rel=0.02)


def test_every_row_has_a_spec():
    specs = [row.spec for row in equal_rows() + fault_rows()]
    assert {"reported_loss" in spec.analysis.enabled for spec in specs} == {True, False}
