from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.evidence.ground_truth import GroundTruthEvidence
from dwcp_ml.rollout.verdict import Outcome
from tests.rollout.evidence import simulation as s


def losses(rng, size, excess):
    """Paired losses: the same hard requests, and the candidate's error on top."""
    stable = rng.beta(2, 8, size)
    return np.clip(stable + excess + rng.normal(0, 0.02, size), 0, 1), stable


def test_a_candidate_further_from_the_truth_fails_even_while_truths_are_pending():
    candidate, stable = losses(np.random.default_rng(1), 3000, 0.08)
    verdict = GroundTruthEvidence.start(0.02).update(candidate, stable, 9999).verdict(0.05)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.value == pytest.approx(0.08, abs=0.01)
    assert verdict.threshold == 0.02
    assert "9,999 predictions (76.9 %) wait for their ground truth" in verdict.sentence


def test_an_equal_candidate_passes_but_not_while_much_is_pending():
    candidate, stable = losses(np.random.default_rng(2), 3000, 0.0)
    evidence = GroundTruthEvidence.start(0.02).update(candidate, stable)
    verdict = evidence.verdict(0.05)
    assert verdict.outcome is Outcome.PASS
    assert verdict.value < 0.02
    waiting = evidence.update([], [], 751)
    assert waiting.verdict(0.05).outcome == Outcome.INSUFFICIENT_DATA
    assert waiting.update([], []).pending == 751
    assert evidence.update([], [], 750).verdict(0.05).outcome is Outcome.PASS
    assert evidence.verdict(0.05, minimum_judged=3001).outcome == Outcome.INSUFFICIENT_DATA


def test_nothing_judged_is_no_data():
    verdict = GroundTruthEvidence.start(0.02).update([], [], 12).verdict(0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert verdict.value is None
    assert "12 predictions (100 %) wait for their ground truth" in verdict.sentence


def test_losses_must_be_paired_and_in_range():
    evidence = GroundTruthEvidence.start(0.02)
    with pytest.raises(DwcpError, match="2 of the candidate and 1 of the stable"):
        evidence.update([0.1, 0.2], [0.1])
    with pytest.raises(DwcpError, match="from 0 to 1"):
        evidence.update([1.2], [0.1])
    with pytest.raises(DwcpError, match="from 0 to 1"):
        evidence.update([0.1], [math.nan])


PAIRS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20)


@given(st.lists(PAIRS, max_size=4), st.floats(0.001, 0.999), st.integers(0, 10**9))
@settings(deadline=None)
def test_the_states_and_the_verdicts_survive_json(blocks, margin, pending):
    evidence = GroundTruthEvidence.start(margin)
    for pairs in blocks:
        evidence = evidence.update([c for c, _ in pairs], [t for _, t in pairs], pending)
    assert GroundTruthEvidence.model_validate_json(evidence.to_json()) == evidence
    verdict = evidence.verdict(0.05)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict


@pytest.mark.slow
def test_a_candidate_at_the_margin_is_decided_no_more_often_than_alpha():
    rng = np.random.default_rng(4)
    failed, passed = np.zeros(500, bool), np.zeros(500, bool)
    for run in range(500):
        evidence = GroundTruthEvidence.start(0.05)
        for _ in range(20):
            stable = (rng.random(50) < 0.2).astype(float)
            extra = rng.random(50) < 0.05 / 0.8
            evidence = evidence.update(np.maximum(stable, extra), stable)
            outcome = evidence.verdict(0.05).outcome
            failed[run] |= outcome is Outcome.FAIL
            passed[run] |= outcome is Outcome.PASS
    s.assert_at_most(failed, 0.05)
    s.assert_at_most(passed, 0.05)
