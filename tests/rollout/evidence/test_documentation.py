"""docs/canary-tests.md says what the code does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dwcp_ml.rollout import drift
from dwcp_ml.rollout.evidence import error_rate, ground_truth, promotion
from dwcp_ml.rollout.evidence.error_rate import CountBlock, Counts
from dwcp_ml.rollout.spec import ALPHA_SHARES, WATCHES
from dwcp_ml.rollout.verdict import Outcome

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "canary-tests.md").read_text("utf-8")
PAGE = " ".join(TEXT.split())


def test_the_constants():
    *deltas, last = (f"{delta:g}" for delta in error_rate.DELTAS)
    assert f"δ is {', '.join(deltas)} or {last}." in PAGE
    prior = error_rate.PRIOR_ERRORS / error_rate.PRIOR_REQUESTS
    assert f"without any it is {100 * prior:g} %" in PAGE
    assert f"fades after {error_rate.MEMORY_REQUESTS:,.0f} requests" in PAGE
    share = promotion.CANDIDATE_SHARE_OF_ALPHA
    assert f"spends {100 * share:g} % of alpha, the stable's {100 - 100 * share:g} %" in PAGE
    assert f"more than {100 * ground_truth.MAX_PENDING_SHARE:g} % of the responses" in PAGE
    assert f"A factor is at most {error_rate.MAX_FACTOR:g}," in PAGE
    assert f"R falls from 1 to {error_rate.reserve(1):g} with the first block" in PAGE
    assert f"at least {promotion.TAIL_FACTOR:g} τ, with a third of the margin" in PAGE
    assert pytest.approx(1 / 3) == promotion.TAIL_SHARE_OF_MARGIN
    assert f"c is {WATCHES} lengths of the watch" in PAGE
    shares = [f"{100 * share:.3g} %" for share in sorted(ALPHA_SHARES.values())[:4]]
    assert [part in PAGE for part in shares] == [True] * 4
    assert sum(ALPHA_SHARES.values()) == pytest.approx(1.0)
    assert f"below {drift.SOME_PSI:g} little, from {drift.LARGE_PSI:g} large" in PAGE


@pytest.mark.parametrize(
    ("margin", "words", "once"),
    [(0.01, "**691** requests", 299), (0.03, "209 for 3 %", 99), (0.05, "119 for 5 %", 59)],
)
def test_the_requests_that_a_promotion_needs_without_an_error(margin, words, once):
    assert words in PAGE
    needed = int("".join(filter(str.isdigit, words.split(maxsplit=1)[0])))
    for requests, outcome in ((needed - 1, Outcome.INSUFFICIENT_DATA), (needed, Outcome.PASS)):
        arm = Counts(requests=requests)
        block = CountBlock(candidate=arm, stable=arm)
        evidence = promotion.PromotionEvidence(margin=margin).update(block)
        assert evidence.verdict(0.05).outcome == outcome
    assert math.ceil(math.log(20) / -math.log1p(-margin)) == once
    assert f"{once}" in PAGE
