"""Differences among the requests that the stable answered in one way: rare flags, rare classes."""

import numpy as np
import pytest

from dwcp_ml.contract.champion import AnswerRecord, DifferenceRecord, difference_record
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.evidence.shares import BLOCK, MAX_FLAG_BOUND, MOST_FLAGS, upper_share
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.verdict import Outcome

ALPHA = 0.03 * 0.05


def pair(answer, served, rare=False, score=None):
    changed = None if served is None else float(answer != served)
    return Pair(
        request_id="r", difference=1.0 if changed is None else changed, signed=changed,
        answer=answer, rare=rare, score=score,
    )  # fmt: skip


def two_detectors(rng, count, share=0.02):
    """Return flags and scores of two detectors that were trained apart, (n,) each."""
    flagged = rng.random(count) < share
    first = np.where(flagged, rng.normal(0.7, 0.03, count), rng.normal(0.45, 0.05, count))
    second = first + rng.normal(0.0, 0.015, count)
    return (first >= 0.6, first), (second >= 0.6, second)


def record_of(rng, count=15_000, share=0.02):
    (flags, scores), (others, other_scores) = two_detectors(rng, count, share)
    return difference_record("is_anomaly", flags, others, scores=(scores, other_scores))


def evidence_of(record):
    return DivergenceEvidence.start(0.1, 0.1, record, flag=True)


FAULTS = {
    "as trained": lambda flag, score: (flag, score),
    "always false": lambda flag, score: (0, score),
    "always true": lambda flag, score: (1, score),
    "not a prediction": lambda flag, score: (None, None),
    "constant score": lambda flag, score: (flag, 0.45),
}


def rolled_out(fault, seed, recorded=True, kept=180):
    """Return the evidence after 500 requests and a number of flagged ones that were kept."""
    rng = np.random.default_rng(seed)
    evidence = evidence_of(record_of(rng) if recorded else None)
    (flags, scores), (others, other_scores) = two_detectors(rng, 40_000)
    places = [*range(500), *(500 + np.flatnonzero(flags[500:]))[:kept]]
    found = []
    for number, place in enumerate(places):
        flag, score = FAULTS[fault](int(others[place]), float(other_scores[place]))
        score = None if score is None else score - float(scores[place])
        found.append(pair(int(flags[place]), flag, number >= 500, score))
    return evidence.update(found)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "as trained"])
def test_a_detector_with_a_constant_answer_fails_however_rare_its_flags_are(fault):
    outcomes = [rolled_out(fault, seed).verdict(ALPHA).outcome for seed in range(10)]
    assert outcomes == [Outcome.FAIL] * 10


def test_a_detector_that_was_trained_again_does_not():
    outcomes = []
    for seed in range(20):
        evidence = rolled_out("as trained", seed)
        outcomes.append(evidence.verdict(ALPHA, 0.05).outcome)
        assert evidence.answer_waited(ALPHA) is None
    assert Outcome.FAIL not in outcomes
    more = (rolled_out("as trained", seed, kept=600) for seed in range(5))
    assert {each.verdict(ALPHA, 0.05).outcome for each in more} == {Outcome.PASS}


@pytest.mark.parametrize("fault", ["always false", "always true"])
def test_without_a_record_most_flags_must_stay(fault):
    for seed in range(10):
        evidence = rolled_out(fault, seed, recorded=False)
        verdict = evidence.verdict(ALPHA)
        assert verdict.outcome is Outcome.FAIL
        good = rolled_out("as trained", seed, recorded=False)
        assert good.verdict(ALPHA).outcome is not Outcome.FAIL
    never = rolled_out("always false", 0, recorded=False).verdict(ALPHA)
    assert (never.value, never.threshold) == (1.0, MOST_FLAGS)


def test_a_record_of_an_earlier_bundle_leaves_that_to_be_shown():
    record = record_of(np.random.default_rng(1)).replace(by_answer=())
    (flagged,) = [part for part in evidence_of(record).parts if part.answer == 1]
    assert (flagged.recorded, flagged.betting.bound) == (None, MOST_FLAGS)


@pytest.mark.parametrize("recorded", [True, False])
def test_the_pairs_that_are_waited_for_are_those_that_show_a_constant_flag(recorded):
    evidence = evidence_of(record_of(np.random.default_rng(2)) if recorded else None)
    evidence = evidence.update([pair(0, 0)] * 500)
    waited = evidence.answer_waited(ALPHA)
    assert (waited.flag, waited.pairs) == (True, 0)
    dropped = [pair(1, 0, rare=True)] * waited.needed
    almost = evidence.update(dropped[: waited.needed - BLOCK])
    assert almost.verdict(ALPHA).outcome is not Outcome.FAIL
    assert almost.answer_waited(ALPHA).pairs == waited.needed - BLOCK
    enough = evidence.update(dropped)
    assert enough.answer_waited(ALPHA) is None
    assert enough.verdict(ALPHA).outcome is Outcome.FAIL


def test_pairs_of_an_answer_are_judged_by_tens_however_they_come():
    """One flagged request of each look is no observation of its own."""
    at_once = evidence_of(None).update([pair(1, number % 2) for number in range(47)])
    one_by_one = evidence_of(None)
    for number in range(47):
        one_by_one = one_by_one.update([pair(1, number % 2)])
    (flagged,), (other,) = (
        [part for part in each.parts if part.answer == 1] for each in (at_once, one_by_one)
    )
    assert flagged.betting.log_above == pytest.approx(other.betting.log_above)
    assert flagged.replace(betting=other.betting) == other
    assert (flagged.betting.sums.count, len(flagged.waiting), flagged.pairs) == (4, 7, 47)
    assert DivergenceEvidence.model_validate_json(at_once.to_json()) == at_once


def test_what_was_kept_for_its_answer_says_nothing_of_the_share_in_the_traffic():
    for record in (None, record_of(np.random.default_rng(3))):
        before = evidence_of(record)
        after = before.update([pair(1, 0, rare=True)] * 30)
        assert after.pairs == 0
        assert after.betting == before.betting
        assert [part for part in after.parts if part.answer is None] == [
            part for part in before.parts if part.answer is None
        ]


def test_a_rare_class_that_is_never_answered_any_more_is_found():
    rng = np.random.default_rng(4)
    champion = rng.choice([0, 5, 9], 5000, p=[0.95, 0.03, 0.02])
    record = difference_record("compression_level", champion, champion)
    start = DivergenceEvidence.start(0.1, 0.1, record)
    live = [pair(int(answer), 0) for answer in champion[:500]]
    kept = [pair(answer, 0, rare=True) for answer in (5, 9) for _ in range(80)]
    assert start.update(live).verdict(ALPHA).outcome is not Outcome.FAIL
    assert start.update(live + kept).verdict(ALPHA).outcome is Outcome.FAIL
    assert start.answer_waited(ALPHA) is None, "only flags are waited for"


def test_of_a_few_examples_the_upper_bound_counts():
    assert upper_share(0.0, 250) == pytest.approx(1 - 0.05 ** (1 / 25))  # 0 of 25
    assert (upper_share(1.0, 10), upper_share(0.0, 0)) == (1.0, pytest.approx(0.95))
    assert upper_share(0.02, 10**18) < 0.05
    few = DifferenceRecord(
        examples=1000, changed=0.0, largest_changed=0.0,
        by_answer=tuple(
            AnswerRecord(answer=answer, examples=each, changed=0.0, largest_changed=0.0)
            for answer, each in ((0, 999), (1, 1))
        ),
    )  # fmt: skip

    def bounds(flag):
        parts = DivergenceEvidence.start(0.1, 0.1, few, flag=flag).parts
        return {part.answer: part.betting.bound for part in parts}

    assert bounds(True)[1] == MOST_FLAGS
    assert 1 not in bounds(False), "of a class that the gate saw once nothing is known"


def test_a_record_that_allows_each_flag_to_change_does_not_hide_a_constant_flag():
    each = AnswerRecord(answer=1, examples=300, changed=1.0, largest_changed=1.0)
    record = DifferenceRecord(examples=9000, changed=0.03, largest_changed=0.03, by_answer=(each,))
    evidence = evidence_of(record)
    (flagged,) = [part for part in evidence.parts if part.answer == 1]
    assert flagged.betting.bound == MAX_FLAG_BOUND
    assert evidence.update([pair(1, 0)] * 500).verdict(ALPHA).outcome is Outcome.FAIL


@pytest.mark.slow
@pytest.mark.parametrize(("length", "recorded"), [(5, True), (25, True), (25, False)])
def test_incidents_that_only_one_of_two_good_detectors_flags_are_no_fault(length, recorded):
    """Whole incidents, of a geometric length, are dropped in 10 of 100; at an alpha of 5 %."""

    def flags(rng, count):
        lengths = 1 + rng.geometric(1 / length, count)
        return np.repeat(rng.random(count) < 0.1, lengths)

    failed = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        dropped = flags(rng, 40)
        record = None
        if recorded:
            calm = np.zeros(49 * len(dropped))
            champion = np.concatenate([calm, np.ones(len(dropped))])
            record = difference_record(
                "is_anomaly", champion, champion - np.concatenate([calm, dropped])
            )
        evidence = evidence_of(record)
        for _ in range(20):
            evidence = evidence.update(
                [pair(1, int(not each), rare=True) for each in flags(rng, 5)]
            )
            if evidence.verdict(0.05).outcome is Outcome.FAIL:
                failed += 1
                break
    assert failed <= 5
