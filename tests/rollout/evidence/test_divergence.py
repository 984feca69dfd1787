"""The test on paired differences, by a tolerance and by what the gate measured."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.champion import DifferenceRecord, difference_record, signed_difference
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.verdict import Outcome

NUMBER, CLASS = "next_throughput_mbps", "compression_level"
ALPHA = 0.03 * 0.05


def pair(difference, signed=None):
    return Pair(request_id="r", difference=difference, signed=signed)


def pairs(differences):
    return [pair(min(abs(float(each)), 1.0), float(each)) for each in differences]


def after(differences, tolerance=0.1):
    return DivergenceEvidence.start(tolerance, 0.1).update(pairs(differences))


def test_answers_that_differ_fail():
    values = np.random.default_rng(1).beta(2, 6, 1000)
    verdict = after(values).verdict(0.02)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.bound > verdict.threshold == 0.1
    assert verdict.samples == 1000
    assert verdict.evidence >= verdict.needed == pytest.approx(50)


def test_answers_that_agree_pass_once_that_is_shown():
    values = np.random.default_rng(2).beta(1, 60, 1000)
    assert after(values[:10]).verdict(0.05).outcome is Outcome.INSUFFICIENT_DATA
    assert after(values).verdict(0.05).outcome is Outcome.PASS


def test_the_two_errors_have_levels_of_their_own():
    evidence = after(np.full(1200, 0.02))
    assert evidence.verdict(1e-9, 0.05).outcome is Outcome.PASS
    assert evidence.verdict(0.05, 1e-9).outcome is Outcome.INSUFFICIENT_DATA


def test_no_pairs_are_no_data():
    verdict = after([]).verdict(0.05)
    assert verdict.outcome is Outcome.INSUFFICIENT_DATA
    assert (verdict.value, verdict.samples) == (None, 0)


def test_what_is_no_difference_is_refused():
    with pytest.raises(DwcpError, match="from 0 to 1"):
        DivergenceEvidence.start(0.1, 0.1).update([pair(0.5).replace(difference=1.5)])


blocks = st.lists(
    st.lists(st.tuples(st.floats(0, 1), st.none() | st.floats(-3, 3)), max_size=20), max_size=4
)
records = st.none() | st.builds(
    difference_record,
    st.sampled_from([NUMBER, CLASS]),
    *[st.lists(st.floats(0, 9), min_size=5, max_size=5).map(np.array)] * 2,
)


@given(blocks, st.floats(0.001, 0.999), st.floats(0.001, 0.499), records)
@settings(deadline=None)
def test_the_state_and_the_verdict_survive_json(blocks, tolerance, margin, record):
    evidence = DivergenceEvidence.start(tolerance, margin, record)
    for block in blocks:
        evidence = evidence.update([pair(*each) for each in block])
    assert DivergenceEvidence.model_validate_json(evidence.to_json()) == evidence
    assert evidence.is_of(tolerance, margin, record)
    verdict = evidence.verdict(0.05)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict


# Against what the gate measured.

RETRAINED = 0.03
"""Spread of the relative difference of a model and the same one trained again."""


def two_models(rng, count, spread=RETRAINED):
    """Return the predictions of the stable and of a candidate that was trained again, Mbit/s."""
    stable = np.exp(rng.normal(5.0, 0.8, count))
    return stable, stable * (1 + rng.normal(0.0, spread, count))


def number_pairs(stable, served):
    signed = [signed_difference(NUMBER, *each) for each in zip(stable, served, strict=True)]
    return [pair(min(abs(each), 1.0), each) for each in signed]


def until_decided(evidence, found, step=20):
    """Return (outcome, pairs seen) of looks after every few pairs."""
    for start in range(0, len(found), step):
        evidence = evidence.update(found[start : start + step])
        outcome = evidence.verdict(ALPHA, 0.05).outcome
        if outcome is Outcome.FAIL:
            return outcome, evidence.pairs
    return outcome, evidence.pairs


@pytest.mark.parametrize(
    ("fault", "most"),
    [
        (lambda served: np.full_like(served, 100.0), 100),
        (lambda served: served * 1.3, 100),
        (lambda served: served * 1.1, 200),
        (lambda served: served / 1.1, 200),
        (np.zeros_like, 100),
        (lambda served: np.where(np.arange(len(served)) % 3 == 0, 0.0, served), 200),
    ],
    ids=["constant", "x 1.3", "x 1.1", "/ 1.1", "zero", "a third is zero"],
)
def test_a_fault_of_serving_is_found_beside_a_record(fault, most):
    worst = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        record = difference_record(NUMBER, *two_models(rng, 2000))
        stable, candidate = two_models(rng, 500)
        evidence = DivergenceEvidence.start(0.1, 0.1, record)
        outcome, seen = until_decided(evidence, number_pairs(stable, fault(candidate)))
        assert outcome is Outcome.FAIL
        worst = max(worst, seen)
    assert worst <= most


@pytest.mark.parametrize("spread", [0.0, 1e-6, 0.005, 0.03, 0.3])
def test_a_model_that_was_trained_again_passes_however_much_it_differs(spread):
    passed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        record = difference_record(NUMBER, *two_models(rng, 500, spread))
        evidence = DivergenceEvidence.start(0.1, 0.1, record)
        outcome, _ = until_decided(evidence, number_pairs(*two_models(rng, 1500, spread)))
        assert outcome is not Outcome.FAIL
        passed += outcome is Outcome.PASS
    assert passed >= 18


def test_a_large_difference_that_the_gate_measured_is_beyond_the_tolerance_and_meant():
    rng = np.random.default_rng(3)
    found = number_pairs(*two_models(rng, 500, 0.4))
    record = difference_record(NUMBER, *two_models(rng, 2000, 0.4))
    with_record, without = (DivergenceEvidence.start(0.1, 0.1, each) for each in (record, None))
    assert until_decided(without, found)[0] is Outcome.FAIL
    assert until_decided(with_record, found)[0] is not Outcome.FAIL


@pytest.mark.parametrize(("live", "wanted"), [(0.05, Outcome.PASS), (0.4, Outcome.FAIL)])
def test_of_a_class_the_share_that_changes_is_compared(live, wanted):
    record = DifferenceRecord(examples=500, changed=0.05, largest_changed=0.05)
    for seed in range(20):
        changed = np.random.default_rng(seed).random(600) < live
        evidence = DivergenceEvidence.start(0.1, 0.1, record)
        assert until_decided(evidence, pairs(changed))[0] is wanted


def test_refused_requests_count_against_the_candidate():
    record = difference_record(NUMBER, *two_models(np.random.default_rng(0), 2000))
    evidence = DivergenceEvidence.start(0.1, 0.1, record).update([pair(1.0)] * 50)
    assert evidence.verdict(ALPHA).outcome is Outcome.FAIL


def test_a_record_that_allows_every_difference_shows_nothing():
    record = DifferenceRecord(examples=10, changed=0.95, largest_changed=0.95)
    evidence = DivergenceEvidence.start(0.1, 0.1, record).update(pairs(np.ones(1000)))
    assert evidence.verdict(ALPHA).outcome is Outcome.INSUFFICIENT_DATA


LINKS = 12


def links_with_biases(rng, count, links, spread=0.04):
    """Return two models that differ by a constant on each link, and the links, (n,) each."""
    bias = np.linspace(-spread, spread, LINKS)
    stable = np.exp(rng.normal(5.0, 0.8, count))
    return stable, stable * (1 + bias[links] + rng.normal(0.0, 0.02, count))


@pytest.mark.slow
@pytest.mark.parametrize("mix", ["all links", "one link", "bursts of one link", "retries"])
def test_equal_models_fail_no_more_often_than_alpha(mix):
    """At an alpha of 5 %, with models that differ from link to link, as retrained ones do."""
    failed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        links = rng.integers(0, LINKS, 3000)
        record = difference_record(NUMBER, *links_with_biases(rng, 3000, links), links)
        live = {
            "all links": rng.integers(0, LINKS, 600),
            "one link": np.full(600, rng.integers(0, LINKS)),
            "bursts of one link": np.repeat(rng.integers(0, LINKS, 12), 50),
            "retries": np.repeat(rng.integers(0, LINKS, 300), 2),
        }[mix]
        stable, candidate = links_with_biases(rng, 600, live)
        if mix == "retries":
            stable, candidate = np.repeat(stable[::2], 2), np.repeat(candidate[::2], 2)
        evidence = DivergenceEvidence.start(0.1, 0.1, record)
        for start in range(0, 600, 50):
            chunk = slice(start, start + 50)
            evidence = evidence.update(number_pairs(stable[chunk], candidate[chunk]))
            if evidence.verdict(0.05).outcome is Outcome.FAIL:
                failed += 1
                break
    assert failed / 200 <= 0.05


def wandering(rng, count, correlation, spread=0.03):
    """Return differences that last: autoregressive, (n,), with this standard deviation."""
    steps = rng.normal(0.0, spread, count)
    for place in range(1, count):
        steps[place] = correlation * steps[place - 1] + (1 - correlation**2) ** 0.5 * steps[place]
    return steps


@pytest.mark.slow
@pytest.mark.parametrize(("correlation", "examples"), [(0.0, 1000), (0.9, 1000), (0.98, 1000)])
def test_differences_that_last_on_one_link_are_no_fault(correlation, examples):
    """Without blocks of pairs 13 and 39 of 40 good candidates were rolled back."""
    failed = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        base = np.full(examples, 100.0)
        measured = base * (1 + wandering(rng, examples, correlation))
        record = difference_record(NUMBER, base, measured)
        live = pairs(wandering(rng, 3000, correlation))
        evidence = DivergenceEvidence.start(0.1, 0.1, record)
        failed += until_decided(evidence, live, step=50)[0] is Outcome.FAIL
    assert failed <= 1


@pytest.mark.parametrize("mix", ["all links", "one link"])
def test_a_scale_of_10_percent_is_found_on_links_that_differ(mix):
    seen = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        links = rng.integers(0, LINKS, 3000)
        record = difference_record(NUMBER, *links_with_biases(rng, 3000, links), links)
        live = rng.integers(0, LINKS, 500) if mix == "all links" else np.full(500, 6)
        stable, candidate = links_with_biases(rng, 500, live)
        evidence = DivergenceEvidence.start(0.1, 0.1, record)
        outcome, pairs = until_decided(evidence, number_pairs(stable, candidate * 1.1), step=50)
        seen.append(pairs if outcome is Outcome.FAIL else 10_000)
    assert sorted(seen)[18] <= 500
