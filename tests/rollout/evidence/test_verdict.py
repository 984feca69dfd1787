from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from dwcp_ml.rollout import verdict as v
from dwcp_ml.rollout.verdict import Outcome


def said(outcome):
    return v.Verdict(test="t", outcome=outcome, sentence=outcome)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("field", ["value", "bound", "threshold", "evidence", "needed"])
def test_what_json_can_not_say_is_refused(field, bad):
    with pytest.raises(ValidationError):
        v.Verdict(test="t", outcome=Outcome.PASS, sentence="s", **{field: bad})


def test_a_fifth_outcome_is_refused():
    with pytest.raises(ValidationError):
        said("inconclusive")


@pytest.mark.parametrize("harm", [Outcome.FAIL, Outcome.ERROR])
@pytest.mark.parametrize("promotion", [Outcome.PASS, Outcome.INSUFFICIENT_DATA])
def test_harm_wins_over_promotion(harm, promotion):
    assert v.combined(said(harm), said(promotion)).outcome == harm


@pytest.mark.parametrize("harm", [Outcome.PASS, Outcome.INSUFFICIENT_DATA])
@pytest.mark.parametrize("promotion", [Outcome.PASS, Outcome.INSUFFICIENT_DATA, Outcome.ERROR])
def test_without_harm_promotion_decides(harm, promotion):
    assert v.combined(said(harm), said(promotion)).outcome == promotion


def test_a_broken_source_is_an_error():
    assert v.unavailable("latency", "Prometheus does not answer.").outcome is Outcome.ERROR


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.031, "3.1 %"),
        (0.002, "0.2 %"),
        (0.1234, "12.3 %"),
        (0.00012, "0.012 %"),
        (0.0996, "10 %"),
        (0.9999, "100.0 %"),
        (1e-12, "0 %"),
    ],
)
def test_percentages(share, text):
    assert v.percent(share) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1, "1"), (0.51, "0.51"), (60.00001, "60"), (12345, "12,345"), (1e300, "1e300")],
)
def test_figures(value, text):
    assert v.figure(value) == text


def test_evidence_has_an_end():
    assert v.evidence_of(1e9) == pytest.approx(1e300)
    assert v.evidence_of(-1e9) == 0
    assert v.evidence_of(0) == 1
