from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.verdict import Outcome


def after(differences, tolerance=0.1):
    return DivergenceEvidence.start(tolerance).update(differences)


def test_answers_that_differ_fail():
    values = np.random.default_rng(1).beta(2, 6, 200)
    verdict = after(values).verdict(0.02)
    assert verdict.outcome is Outcome.FAIL
    assert verdict.bound > verdict.threshold == 0.1
    assert verdict.evidence >= verdict.needed == pytest.approx(50)
    assert verdict.sentence.startswith("The predictions for 200 requests differ by 0.2")
    assert "rolled back at 50" in verdict.sentence


def test_answers_that_agree_pass_once_that_is_shown():
    values = np.random.default_rng(2).beta(1, 60, 400)
    assert after(values[:10]).verdict(0.05).outcome == Outcome.INSUFFICIENT_DATA
    verdict = after(values).verdict(0.05)
    assert verdict.outcome is Outcome.PASS
    assert "passed at 20" in verdict.sentence
    assert after(values).verdict(0.05, minimum_pairs=401).outcome == Outcome.INSUFFICIENT_DATA


def test_the_two_errors_have_levels_of_their_own():
    evidence = after(np.full(120, 0.02))
    assert evidence.verdict(1e-9, 0.05).outcome is Outcome.PASS
    assert evidence.verdict(0.05, 1e-9).outcome == Outcome.INSUFFICIENT_DATA


def test_no_pairs_are_no_data():
    verdict = after([]).verdict(0.05)
    assert verdict.outcome == Outcome.INSUFFICIENT_DATA
    assert verdict.value is None
    assert verdict.samples == 0


def test_what_is_no_difference_is_refused():
    with pytest.raises(DwcpError, match="from 0 to 1"):
        after([1.5])


@given(st.lists(st.lists(st.floats(0, 1), max_size=20), max_size=4), st.floats(0.001, 0.999))
@settings(deadline=None)
def test_the_state_and_the_verdict_survive_json(blocks, tolerance):
    evidence = DivergenceEvidence.start(tolerance)
    for block in blocks:
        evidence = evidence.update(block)
    assert DivergenceEvidence.model_validate_json(evidence.to_json()) == evidence
    verdict = evidence.verdict(0.05)
    assert type(verdict).model_validate_json(verdict.to_json()) == verdict
