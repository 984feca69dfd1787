"""The test of the predictions' distributions: its null, its power, and what it can't compare."""

import math

import numpy as np
import pytest

from dwcp_ml.rollout.evidence.predictions import QUANTILES, PredictionEvidence
from dwcp_ml.rollout.observation import BucketCounts
from dwcp_ml.rollout.verdict import Outcome

ALPHA = 0.05 * 0.03
MARGIN = 0.1
EDGES = np.exp(np.arange(-2.0, 12.0, 0.1))
BOUNDS = [f"{edge:.6g}" for edge in EDGES] + ["+Inf"]


def counted(values, buckets="b"):
    places, counts = np.unique(np.searchsorted(EDGES, values), return_counts=True)
    single = {BOUNDS[place]: int(count) for place, count in zip(places, counts, strict=True)}
    return BucketCounts(buckets=buckets, counts=single)


class Traffic:
    """Requests for fourteen links whose throughput wanders; both arms get the same mixture."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.links = np.exp(self.rng.normal(5.0, 1.0, 14))
        self.level = np.zeros(14)

    def block(self, requests):
        link = self.rng.integers(0, 14, requests)
        noise = self.rng.normal(0.0, 0.25, requests)
        return self.links[link] * np.exp(self.level[link] + noise)

    def pass_time(self):
        self.level = 0.95 * self.level + self.rng.normal(0.0, 0.1, 14)


def evidence_after(seed, fault, blocks=40, per_block=(10, 990), pods=None):
    traffic, evidence = Traffic(seed), PredictionEvidence.start(MARGIN)
    for _ in range(blocks):
        traffic.pass_time()
        stable = counted(traffic.block(per_block[1]))
        candidate = traffic.block(per_block[0])
        evidence = evidence.update(counted(fault(candidate)), stable, pods)
    return evidence


@pytest.mark.parametrize("per_block", [(10, 990), (250, 750), (500, 500)])
def test_candidates_that_predict_the_same_stay_in_traffic_that_wanders(per_block):
    found = [evidence_after(seed, lambda v: v, per_block=per_block) for seed in range(12)]
    assert [one.verdict(ALPHA).outcome for one in found] == [Outcome.INSUFFICIENT_DATA] * 12


def test_a_difference_within_the_margin_is_no_evidence():
    """A factor of 1.1 moves a distribution this wide by 4 % at most."""
    found = [evidence_after(seed, lambda v: 1.1 * v, per_block=(250, 750)) for seed in range(6)]
    assert max(one.log_e for one in found) < -math.log(ALPHA)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda v: np.full_like(v, 100.0), id="a constant"),
        pytest.param(lambda v: v / 8.0, id="bytes for bits"),
        pytest.param(lambda v: v * 1000.0, id="another unit"),
        pytest.param(lambda v: np.where(np.arange(len(v)) % 2, 0.0, v), id="zero for every other"),
    ],
)
def test_a_fault_is_found_within_minutes(fault):
    found = [evidence_after(seed, fault, blocks=20) for seed in range(8)]
    assert [one.verdict(ALPHA).outcome for one in found] == [Outcome.FAIL] * 8
    assert max(one.verdict(ALPHA).samples for one in found) <= 200


@pytest.mark.slow
@pytest.mark.parametrize("requests", [1, 20])
def test_the_mean_factor_of_a_block_is_at_most_one_at_the_edge_of_the_margin(requests):
    """The null is composite: the worst of it is a candidate that differs by the whole margin."""
    rng = np.random.default_rng(1)
    past = counted(np.exp(rng.normal(5.0, 1.0, 20_000)))
    start = PredictionEvidence.start(MARGIN).update(past.replace(counts={}), past)
    after = []
    for _ in range(1500):
        stable = counted(np.exp(rng.normal(5.0, 1.0, 10 * requests)))
        shifted = np.exp(rng.normal(5.0, 1.0, requests))
        low = rng.random(requests) < MARGIN
        shifted[low] = np.minimum(shifted[low], np.exp(rng.normal(3.0, 0.3, low.sum())))
        after.append(math.exp(start.update(counted(shifted), stable).log_e))
    assert np.mean(after) <= 1.0 + 3.0 * np.std(after) / math.sqrt(len(after))


def test_yes_and_no_are_compared_too():
    """All edges are the same for a flag that is mostly false."""
    flags = BucketCounts(buckets="f", counts={"0": 990, "1": 10})
    often = BucketCounts(buckets="f", counts={"0": 5, "1": 5})
    evidence = PredictionEvidence.start(MARGIN)
    for _ in range(15):
        evidence = evidence.update(often, flags)
    assert evidence.verdict(ALPHA).outcome is Outcome.FAIL


def test_a_candidate_whose_servers_report_no_predictions_is_waited_for():
    stable = counted(np.array([1.0, 2.0]))
    evidence = PredictionEvidence.start(MARGIN).update(None, stable)
    assert evidence.verdict(ALPHA).outcome is Outcome.ERROR
    assert evidence.update(stable, stable).verdict(ALPHA).outcome is Outcome.INSUFFICIENT_DATA


def test_nothing_is_said_of_a_stable_that_reports_none():
    evidence = PredictionEvidence.start(MARGIN).update(counted(np.array([1.0])), None)
    verdict = evidence.verdict(ALPHA)
    assert (verdict.outcome, verdict.samples) == (Outcome.INSUFFICIENT_DATA, 0)


def test_other_buckets_are_an_error_and_not_a_difference():
    values = np.array([1.0, 2.0])
    evidence = PredictionEvidence.start(MARGIN).update(counted(values, "new"), counted(values))
    assert evidence.verdict(ALPHA).outcome is Outcome.ERROR


def test_what_failed_stays_failed_when_the_metric_is_lost():
    evidence = evidence_after(1, lambda v: np.full_like(v, 100.0))
    lost = evidence.update(None, counted(np.array([1.0])))
    assert lost.verdict(ALPHA).outcome is Outcome.FAIL


def test_the_stable_changing_its_buckets_starts_the_comparison_over():
    evidence = evidence_after(1, lambda v: np.full_like(v, 100.0))
    values = counted(np.array([1.0, 2.0]), "new")
    fresh = evidence.update(values, values)
    assert (fresh.log_e, sum(fresh.past.counts.values())) == (0.0, 2.0)


def by_pod(low, high):
    counts = {"100": low, "200": high}
    return BucketCounts(buckets="b", counts=counts)


def pods(stable, candidate):
    """Return evidence with counts by pod, at a median of 100."""
    whole = by_pod(500, 480)
    evidence = PredictionEvidence.start(MARGIN).update(whole, whole)
    assert evidence.quantiles[QUANTILES.index(0.5)].edge == 100.0
    named = [
        {f"{arm}-{place}": by_pod(*counts) for place, counts in enumerate(each)}
        for arm, each in (("stable", stable), ("candidate", candidate))
    ]
    return evidence.update(whole, whole, (named[0], named[1]))


@pytest.mark.parametrize(
    ("stable", "candidate", "odd"),
    [
        ([(500, 500)] * 3, [(100, 0)] * 3, ""),
        ([(500, 500)] * 3, [(0, 100)] * 3, ""),
        ([(500, 500)] * 3, [(100, 0), (50, 50), (51, 49)], "candidate-0"),
        ([(500, 500)] * 3, [(0, 100), (50, 50), (51, 49)], "candidate-0"),
        ([(500, 500)] * 2 + [(1000, 0)], [(50, 50)] * 3, "stable-2"),
    ],
)
def test_a_single_pod_that_predicts_otherwise_is_named(stable, candidate, odd):
    assert pods(stable, candidate).odd_pod == odd
