"""The test of reported losses: its null, its power, and when it passes."""

import math

import numpy as np
import pytest

from dwcp_ml.rollout.evidence.loss import LossEvidence
from dwcp_ml.rollout.verdict import Outcome
from dwcp_ml.serving.sketches import FINE_BUCKETS, edges_between

ALPHA, PASSING = 0.05 * 0.03, 0.05
MARGIN = 0.02
EDGES = np.array(edges_between(0.0, 1.0, whole=False, buckets=FINE_BUCKETS))
BOUNDS = [f"{edge:g}" for edge in EDGES] + ["+Inf"]


def counted(values):
    places, counts = np.unique(np.searchsorted(EDGES, values), return_counts=True)
    return {BOUNDS[place]: int(count) for place, count in zip(places, counts, strict=True)}


def relative_errors(rng, level, count):
    """Return losses of a model with a MAPE of about 4.5 %, that wanders with the network."""
    return np.abs(rng.normal(0.0, 0.056, count)) * np.exp(level + rng.normal(0.0, 0.3, count))


def evidence_after(seed, factor, blocks, per_block, only_harm=False):
    rng, level, evidence = np.random.default_rng(seed), 0.0, LossEvidence.start(MARGIN)
    seen = 0
    for _ in range(blocks):
        level = 0.95 * level + rng.normal(0.0, 0.05)
        candidate, stable = (relative_errors(rng, level, count) for count in per_block)
        evidence = evidence.update(counted(factor * candidate), counted(stable),
                                   only_harm=only_harm)  # fmt: skip
        seen += per_block[0]
        if evidence.verdict(ALPHA, PASSING).outcome is Outcome.FAIL:
            return evidence, seen
    return evidence, None


@pytest.mark.parametrize("per_block", [(10, 990), (250, 750)])
def test_a_candidate_with_the_same_losses_stays(per_block):
    found = [evidence_after(seed, 1.0, 60, per_block)[1] for seed in range(8)]
    assert found == [None] * 8


@pytest.mark.parametrize(
    ("factor", "per_block", "most"),
    [(1.2, (50, 950), 4000), (1.5, (10, 990), 500), (2.0, (10, 990), 200)],
)
def test_larger_losses_are_found(factor, per_block, most):
    """Requests of the candidate until then; the test of means needed 11,178 for a factor of 1.5."""
    found = [evidence_after(seed, factor, 120, per_block)[1] for seed in range(8)]
    assert None not in found
    assert max(found) <= most


def test_it_passes_once_the_losses_are_surely_not_larger():
    evidence, _ = evidence_after(1, 1.0, 60, (500, 500))
    assert evidence.verdict(ALPHA, PASSING).outcome is Outcome.PASS
    worse, _ = evidence_after(1, 1.12, 60, (500, 500))
    assert worse.verdict(ALPHA, PASSING).outcome is not Outcome.PASS


def test_a_part_of_the_reports_passes_nothing_and_fails_all_the_same():
    evidence, _ = evidence_after(1, 1.0, 60, (500, 500), only_harm=True)
    assert evidence.verdict(ALPHA, PASSING).outcome is Outcome.INSUFFICIENT_DATA
    assert evidence_after(1, 2.0, 60, (500, 500), only_harm=True)[1] is not None


@pytest.mark.parametrize(("wrong", "found"), [(0.02, False), (0.1, True)])
def test_right_and_wrong(wrong, found):
    rng, evidence = np.random.default_rng(3), LossEvidence.start(MARGIN)
    for _ in range(100):
        arms = [rng.binomial(count, share) for count, share in ((50, wrong), (950, 0.02))]
        candidate = {"0": 50 - int(arms[0]), "+Inf": int(arms[0])}
        stable = {"0": 950 - int(arms[1]), "+Inf": int(arms[1])}
        evidence = evidence.update(candidate, stable)
    assert (evidence.verdict(ALPHA, PASSING).outcome is Outcome.FAIL) == found


def test_without_reports_there_is_no_verdict():
    evidence = LossEvidence.start(MARGIN).update({}, {}).update({"0": 1}, {})
    assert evidence.log_e == 0.0
    assert evidence.verdict(ALPHA, PASSING).outcome is Outcome.INSUFFICIENT_DATA


def test_the_failing_verdict_states_the_evidence_that_it_needed():
    evidence, _ = evidence_after(1, 2.0, 60, (50, 950))
    verdict = evidence.verdict(ALPHA, PASSING)
    assert (verdict.outcome, verdict.test) == (Outcome.FAIL, "reported_loss")
    assert verdict.evidence >= verdict.needed


@pytest.mark.slow
def test_the_mean_factor_of_a_block_is_at_most_one_at_the_edge_of_the_margin():
    """With the worst of the null: the candidate exceeds the stable's edges by the whole margin."""
    rng = np.random.default_rng(1)
    past = counted(np.abs(rng.normal(0.0, 0.056, 20_000)))
    start = LossEvidence.start(MARGIN).update({}, past)
    after = []
    for _ in range(1500):
        stable = np.abs(rng.normal(0.0, 0.056, 200))
        candidate = np.abs(rng.normal(0.0, 0.056, 20))
        candidate[rng.random(20) < MARGIN] = 0.9
        after.append(math.exp(start.update(counted(candidate), counted(stable)).log_e))
    assert np.mean(after) <= 1.0 + 3.0 * np.std(after) / math.sqrt(len(after))
