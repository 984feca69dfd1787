from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.evidence import error_rate as e
from dwcp_ml.rollout.evidence import promotion as lat
from dwcp_ml.rollout.evidence.error_rate import CountBlock, Counts
from dwcp_ml.rollout.observation import Histogram
from dwcp_ml.rollout.verdict import Outcome
from tests.matrix import examples
from tests.rollout.evidence import arrays
from tests.rollout.evidence import simulation as s

EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)


def histogram(seconds, edges=EDGES):
    counts = [int((np.asarray(seconds) <= edge).sum()) for edge in (*edges, np.inf)]
    return Histogram(edges=edges, counts=tuple(counts))


def lognormal(rng, size, median=0.004, spread=0.4):
    return median * np.exp(spread * rng.normal(size=size))


@pytest.mark.parametrize(
    ("counts", "edge"),
    [
        ((99, 100, 100, 100), 0.1),
        ((98, 99, 100, 100), 0.2),
        ((0, 0, 100, 100), 0.3),
        ((0, 0, 50, 100), 0.3),
        ((100, 100, 100, 100), 0.1),
    ],
)
def test_slow_is_the_smallest_edge_that_99_percent_do_not_pass_or_the_last(counts, edge):
    assert lat.slow_edge(Histogram(edges=(0.1, 0.2, 0.3), counts=counts), 0.99) == edge


def test_the_first_block_only_teaches_what_is_slow():
    rng = np.random.default_rng(1)
    stable = histogram(lognormal(rng, 5000))
    evidence = lat.LatencyEvidence.start(0.03).update(histogram([0.09] * 60), stable)
    assert evidence.slow.tau == 0.025
    assert evidence.tail.tau == 0.1
    assert evidence.slow.harm.log_e == evidence.tail.harm.log_e == 0.0
    assert evidence.slow.harm.candidate.requests == 0
    assert evidence.harm_verdict(0.05, 0.05).outcome == Outcome.INSUFFICIENT_DATA


def test_the_threshold_is_of_the_block_before_and_the_test_is_that_of_error_rates():
    rng = np.random.default_rng(2)
    first, second = lognormal(rng, 5000), lognormal(rng, 4000, median=0.02)
    candidate = lognormal(rng, 80, median=0.015)
    evidence = lat.LatencyEvidence.start(0.03).update(None, histogram(first))
    evidence = evidence.update(histogram(candidate), histogram(second))
    # Above 25 ms, which was slow in the first block, though no longer in the second.
    block = CountBlock(
        candidate=Counts(requests=80, errors=int((candidate > 0.025).sum())),
        stable=Counts(requests=4000, errors=int((second > 0.025).sum())),
    )
    rate = ((first > 0.025).sum() + 0.5) / (5000 + 50)
    expected = e.invested(
        (), 0, e.block_log_ratios(block, float(rate), margin=0.03), e.LOG_MAX_FACTOR
    )
    assert evidence.slow.harm.log_capitals == pytest.approx(expected)
    assert evidence.slow.harm.candidate == block.candidate
    assert evidence.slow.promotion.stable == block.stable
    assert evidence.slow.tau == 0.1
    assert evidence.tail.harm.candidate.errors == int((candidate > 0.1).sum())


def test_a_slow_candidate_fails_and_is_described():
    rng = np.random.default_rng(3)
    evidence = lat.LatencyEvidence.start(0.03)
    for _ in range(9):
        slower = lognormal(rng, 60, median=0.016)
        evidence = evidence.update(histogram(slower), histogram(lognormal(rng, 5940)))
    verdict = evidence.harm_verdict(0.05, 0.05)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.test == "latency"
    assert "took longer than 25 ms" in verdict.sentence or "than 10 ms" in verdict.sentence
    assert evidence.promotion_verdict(0.05).outcome == Outcome.INSUFFICIENT_DATA


def test_a_candidate_slower_by_less_than_the_margin_is_never_taken_back():
    rng = np.random.default_rng(7)
    evidence = lat.LatencyEvidence.start(0.3)
    for _ in range(40):
        slower = lognormal(rng, 600, median=0.0063)  # 12 % take over 10 ms, of the stable 1 %
        evidence = evidence.update(histogram(slower), histogram(lognormal(rng, 5400)))
    verdict = evidence.harm_verdict(0.05, 0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert verdict.value > 3 * evidence.slow.harm.stable.rate
    assert verdict.threshold == pytest.approx(evidence.slow.harm.stable.rate + 0.3)
    assert "a margin of 30.0 %" in verdict.sentence
    assert evidence.promotion_verdict(0.05).outcome is Outcome.PASS


def test_an_equal_candidate_passes():
    rng = np.random.default_rng(4)
    evidence = lat.LatencyEvidence.start(0.03)
    for _ in range(30):
        evidence = evidence.update(histogram(lognormal(rng, 60)), histogram(lognormal(rng, 5940)))
    assert evidence.harm_verdict(0.05, 0.05).outcome == Outcome.INSUFFICIENT_DATA
    verdict = evidence.promotion_verdict(0.05)
    assert verdict.outcome is Outcome.PASS
    assert verdict.bound < verdict.threshold


def test_what_is_beyond_the_last_edge_is_still_seen():
    slow_edges = (0.0001, 0.0002)
    stable = Histogram(edges=slow_edges, counts=(0, 4000, 5000))
    bad = Histogram(edges=slow_edges, counts=(0, 0, 60))
    evidence = lat.LatencyEvidence.start(0.03)
    for _ in range(5):
        evidence = evidence.update(bad, stable)
    assert evidence.slow.tau == evidence.tail.tau == 0.0002
    assert evidence.harm_verdict(0.05, 0.05).outcome is Outcome.FAIL


def test_an_empty_block_changes_nothing():
    evidence = lat.LatencyEvidence.start(0.03).update(histogram([0.1]), histogram([0.001] * 9))
    empty = histogram([])
    assert evidence.update(empty, empty) is evidence
    assert evidence.update(None, None) is evidence


def test_without_the_stable_the_threshold_stays():
    evidence = lat.LatencyEvidence.start(0.03).update(None, histogram([0.002] * 500))
    after = evidence.update(histogram([0.09] * 50), None)
    assert after.slow.tau == evidence.slow.tau
    assert after.slow.harm.log_e == 0.0


@pytest.mark.parametrize(
    ("edges", "counts", "sentence"),
    [
        ((), (1,), "at least one edge"),
        ((0.1, 0.2), (1, 2), "2 edges and 2 counts"),
        ((0.2, 0.1), (1, 2, 3), "must be finite and ascend"),
        ((0.1, math.inf), (1, 2, 3), "must be finite and ascend"),
        ((0.1, 0.2), (3, 2, 3), "never descend"),
        ((0.1, 0.2), (-1, 2, 3), "never descend"),
    ],
)
def test_what_is_no_histogram_is_refused(edges, counts, sentence):
    bad = Histogram(edges=edges, counts=counts)
    with pytest.raises(DwcpError, match=sentence):
        lat.LatencyEvidence.start(0.03).update(None, bad)


def test_other_buckets_are_refused():
    evidence = lat.LatencyEvidence.start(0.03).update(None, histogram([0.002] * 500))
    other = histogram([0.002], edges=(0.001, 0.1))
    with pytest.raises(DwcpError, match="buckets are not those of the other arm or of before"):
        evidence.update(None, other)
    with pytest.raises(DwcpError, match="buckets are not those"):
        lat.LatencyEvidence.start(0.03).update(other, histogram([0.002]))


HISTOGRAMS = st.lists(st.integers(0, 10**9), min_size=8, max_size=8).map(
    lambda single: Histogram(edges=EDGES, counts=tuple(np.cumsum(single).tolist()))
)


@given(st.lists(st.tuples(st.none() | HISTOGRAMS, st.none() | HISTOGRAMS), max_size=5))
@settings(max_examples=examples(60), deadline=None)
def test_the_state_and_the_verdicts_survive_json_and_any_counts(blocks):
    evidence = lat.LatencyEvidence.start(0.03)
    for candidate, stable in blocks:
        evidence = evidence.update(candidate, stable)
    assert lat.LatencyEvidence.model_validate_json(evidence.to_json()) == evidence
    for verdict in (evidence.harm_verdict(0.05, 0.05), evidence.promotion_verdict(0.05)):
        assert type(verdict).model_validate_json(verdict.to_json()) == verdict


def test_two_percent_that_take_seconds_fail_though_they_are_within_the_margin():
    rng = np.random.default_rng(8)
    edges = (*EDGES, 0.25, 0.5, 1.0)
    evidence = lat.LatencyEvidence.start(0.03)
    for _ in range(40):
        candidate = np.where(rng.random(300) < 0.02, 3.0, lognormal(rng, 300))
        evidence = evidence.update(
            histogram(candidate, edges), histogram(lognormal(rng, 5700), edges)
        )
        assert evidence.promotion_verdict(0.05).outcome is not Outcome.PASS
    assert e.rate_verdict("", "", evidence.slow.harm, 0.05).outcome is Outcome.INSUFFICIENT_DATA
    assert evidence.harm_verdict(0.05, 0.05).outcome is Outcome.FAIL


@pytest.mark.slow
def test_equal_arms_whose_latency_follows_the_day_are_not_rolled_back():
    rng = np.random.default_rng(5)
    wrong = np.zeros(150, bool)
    for run in range(150):
        evidence = lat.LatencyEvidence.start(0.03)
        for window in range(40):
            median = 0.004 * (1 + 0.8 * math.sin(window / 4))
            requests = 60 if window < 20 else 300
            evidence = evidence.update(
                histogram(lognormal(rng, requests, median)),
                histogram(lognormal(rng, 2000, median)),
            )
            wrong[run] |= evidence.harm_verdict(0.05, 0.05).outcome is Outcome.FAIL
    s.assert_at_most(wrong, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("margin", [0.0, 0.001])
@pytest.mark.parametrize(
    ("requests", "shares"), [(1000, [0.01] * 60 + [0.25] * 20), (20, [0.2] * 80)]
)
def test_a_threshold_from_one_small_block_does_no_harm(requests, shares, margin):
    # τ is the 99th percentile of few requests and jumps about; it is known before its block.
    rng, runs = np.random.default_rng(6), 3000
    single = np.diff(stats.norm.cdf(np.log(np.array(EDGES) / 0.004) / 0.4), prepend=0.0, append=1.0)
    past, place = np.zeros((runs, len(single))), np.full(runs, -1)
    sums, wrong = np.zeros((runs, len(e.DELTAS))), np.zeros(runs, bool)
    rows = np.arange(runs)
    for share in shares:
        candidate = rng.binomial(requests, share, runs)
        blocks = [rng.multinomial(n, single) for n in (candidate, requests - candidate)]
        upto = [one.cumsum(axis=1) for one in blocks]
        at = np.maximum(place, 0)
        counts = [x for one in upto for x in (one[:, -1], one[:, -1] - one[rows, at])]
        total, below = past.sum(axis=1), past.cumsum(axis=1)[rows, at]
        rate = (total - below + 0.01 * lat.PRIOR_SLOW_REQUESTS) / (total + lat.PRIOR_SLOW_REQUESTS)
        ratios = arrays.log_ratios(*(one.astype(float) for one in counts), rate, margin)
        sums += np.where((place >= 0)[:, None], ratios, 0.0)
        wrong |= special.logsumexp(sums, axis=1) - np.log(len(e.DELTAS)) >= -math.log(0.05)
        past += blocks[1]
        reached = upto[1] >= lat.QUANTILE * upto[1][:, -1:]
        place = np.minimum(reached.argmax(axis=1), len(EDGES) - 1)
    s.assert_at_most(wrong, 0.05)
    assert wrong.any()
