"""The watch with all traffic: its false alarms by blocks, and how soon it finds harm."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.rollout.evidence import watch as w
from dwcp_ml.rollout.evidence.error_rate import Counts
from dwcp_ml.rollout.spec import any_rollout
from dwcp_ml.rollout.verdict import Outcome
from tests.matrix import examples, few


def after(evidence, *blocks):
    for requests, errors in blocks:
        evidence = evidence.update(Counts(requests=requests, errors=errors))
    return evidence


def run_length(watch_seconds):
    return any_rollout({"watch_seconds": watch_seconds}).watch_run_length


def value(evidence):
    return evidence.verdict("watch", "failed", 1e9).evidence


def test_it_is_the_formula():
    blocks, detectors = [(100, 0), (40, 3), (7, 1)], np.zeros(len(w.DELTAS))
    odds = 0.01 / 0.99 * np.exp(w.DELTAS)
    rate = odds / (1 + odds)
    for n, k in blocks:
        factor = (rate / 0.01) ** k * ((1 - rate) / 0.99) ** (n - k)
        detectors = (detectors + 1) * np.minimum(factor, 4)
    assert value(after(w.WatchEvidence.start(0.01), *blocks)) == pytest.approx(detectors.mean())


@pytest.mark.parametrize("requests", few([1, 30, 1000], 30))
def test_the_mean_after_j_blocks_is_at_most_j(requests):
    rng = np.random.default_rng(1)
    means = []
    for _ in range(400):
        evidence = w.WatchEvidence.start(0.02)
        for errors in rng.binomial(requests, 0.02, 20):
            evidence = evidence.update(Counts(requests=requests, errors=int(errors)))
        means.append(value(evidence))
    assert np.mean(means) <= 20 + 4 * np.std(means) / 20


@pytest.mark.slow
def test_false_alarms_of_a_default_watch_are_rare():
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(500):
        evidence = w.WatchEvidence.start(0.004)
        for errors in rng.binomial(1000, 0.004, 30):
            evidence = evidence.update(Counts(requests=1000, errors=int(errors)))
            if evidence.verdict("watch", "failed", run_length(300)).outcome is Outcome.FAIL:
                wrong += 1
                break
    assert wrong <= 5 + 7  # 1 % is allowed


@pytest.mark.parametrize(
    ("hours", "watch_seconds", "errors", "latest"),
    [(0, 300, 1000, 6), (12, 86_400, 1000, 11), (12, 86_400, 20, 20)],
)
def test_harm_is_found_however_late_it_begins(hours, watch_seconds, errors, latest):
    """An outage, and 2 % of errors against a bound of 0.4 %."""
    evidence = after(w.WatchEvidence.start(0.004), *[(1000, 1)] * (hours * 360))
    needed, taken = run_length(watch_seconds), 0
    while evidence.verdict("watch", "failed", needed).outcome is not Outcome.FAIL:
        evidence, taken = after(evidence, (1000, errors)), taken + 1
    assert taken <= latest


def test_a_watch_does_not_end_while_everything_fails():
    """However short it is: the first block already keeps it open."""
    evidence = w.WatchEvidence.start(0.01)
    assert evidence.verdict("watch", "failed", 500).outcome is Outcome.PASS
    for _ in range(4):
        evidence = after(evidence, (10, 10))
        assert evidence.verdict("watch", "failed", 500).outcome is Outcome.INSUFFICIENT_DATA
    assert after(evidence, (10, 10)).verdict("watch", "failed", 500).outcome is Outcome.FAIL


@given(st.lists(st.integers(0, 10**9).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n)))))
@settings(max_examples=examples(60), deadline=None)
def test_the_state_survives_json_and_any_counts(blocks):
    evidence = after(w.WatchEvidence.start(0.3), *blocks)
    assert w.WatchEvidence.model_validate_json(evidence.to_json()) == evidence
    verdict = evidence.verdict("watch", "failed", 500)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict
