"""The comparison itself: what passes, what fails, what is a near-tie."""

import math
from dataclasses import replace

import numpy as np
import pytest

from dwcp_ml.contract.errors import ErrorCode, ExportFailed
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, RELIABILITY
from dwcp_ml.contract.records import Parity
from dwcp_ml.export.exporter import parity_fault
from dwcp_ml.export.parity import NOT_A_NUMBER, compare
from tests.errors import about

THROUGHPUT = BANDWIDTH.form().outputs
LEVEL = COMPRESSION.form().outputs
ANOMALY = RELIABILITY.form().outputs
HIGH = LATENCY.form().outputs


def throughput(*values: float) -> dict[str, np.ndarray]:
    return {"next_throughput_mbps": np.array(values, dtype=np.float32)}


def anomaly(scores: list[float], flags: list[bool]) -> dict[str, np.ndarray]:
    return {
        "anomaly_score": np.array(scores, dtype=np.float32),
        "is_anomaly": np.array(flags, dtype=bool),
    }


def level(chosen: int, first: float, second: float) -> dict[str, np.ndarray]:
    """Return one prediction in which levels 3 and 7 hold the mass."""
    probabilities = np.full((1, 10), 0.0, dtype=np.float32)
    probabilities[0, 3], probabilities[0, 7] = first, second
    return {
        "compression_level": np.array([chosen], dtype=np.int64),
        "probabilities": probabilities,
    }


@pytest.mark.parametrize(
    ("trained", "exported", "difference", "equal"),
    [
        (0.5, 0.5, 0.0, True),
        (0.5, 0.50005, 5e-5, True),
        (0.5, 0.49995, 5e-5, True),
        (0.5, 0.5002, 2e-4, False),
        (0.5, 0.4998, 2e-4, False),
        (-0.5, -0.5002, 2e-4, False),
        (10_000.0, 10_000.5, 5e-5, True),  # large outputs: relative
        (10_000.0, 10_002.0, 2e-4, False),
        (-10_000.0, -10_000.5, 5e-5, True),
        (1e-3, 1.05e-3, 5e-5, True),  # small outputs: absolute
    ],
)
def test_a_number_may_differ_by_one_part_in_ten_thousand(trained, exported, difference, equal):
    found = compare(throughput(1.0, trained), throughput(1.0, exported), THROUGHPUT)
    assert found.equal is equal
    assert found.largest_relative_difference == pytest.approx(difference, rel=2e-2, abs=1e-9)
    assert found.rows == 2


def test_the_largest_difference_counts_wherever_it_is():
    reference = throughput(*([1.0] * 100))
    for place in (0, 57, 99):
        exported = throughput(*([1.0] * 100))
        exported["next_throughput_mbps"][place] += 0.25
        found = compare(reference, exported, THROUGHPUT)
        assert found.largest_relative_difference == 0.25


def test_every_element_of_a_vector_counts():
    exported = level(3, 0.9, 0.1)
    exported["probabilities"][0, 9] = 0.0003
    found = compare(level(3, 0.9, 0.1), exported, LEVEL)
    assert not found.equal
    assert found.flipped_decisions == 0


def test_the_tolerance_is_the_callers():
    strict = compare(throughput(1.0), throughput(1.00005), THROUGHPUT, tolerance=1e-6)
    assert not strict.equal
    assert strict.tolerance == 1e-6


def test_a_flipped_decision_away_from_the_threshold_fails_though_the_scores_agree():
    scores = [0.1, 0.499, 0.7]
    found = compare(
        anomaly(scores, [False, False, True]),
        anomaly(scores, [False, True, True]),
        ANOMALY,
        threshold=0.5,
    )
    assert found.largest_relative_difference == 0
    assert found.flipped_decisions == 1
    assert not found.equal


@pytest.mark.parametrize(
    ("score", "threshold", "flips"),
    [
        (0.50005, 0.5, 0),
        (0.49995, 0.5, 0),
        (0.5002, 0.5, 1),
        (0.4998, 0.5, 1),
        (2000.1, 2000.0, 0),  # the distance is relative to the score, as the tolerance is
        (2000.9, 2000.0, 1),
    ],
)
def test_a_decision_at_the_threshold_may_flip(score, threshold, flips):
    trained = {
        "reconstruction_error": np.array([score], dtype=np.float32),
        "is_high_latency": np.array([score >= threshold]),
    }
    exported = trained | {"is_high_latency": ~trained["is_high_latency"]}
    assert compare(trained, exported, HIGH, threshold=threshold).flipped_decisions == flips


@pytest.mark.parametrize(
    ("first", "second", "flips"), [(0.5, 0.49995, 0), (0.5, 0.49985, 1), (0.5, 0.4995, 1)]
)
def test_two_classes_may_swap_only_when_they_are_tied(first, second, flips):
    found = compare(level(3, first, second), level(7, first, second), LEVEL)
    assert found.flipped_decisions == flips


def test_the_distance_of_a_near_tie_counts_itself():
    """Powers of two, so that nothing is rounded."""
    step = 2.0**-10
    trained = anomaly([0.5 + step], [True])
    found = compare(trained, anomaly([0.5 + step], [False]), ANOMALY, threshold=0.5, tolerance=step)
    assert found.flipped_decisions == 0
    nearer = step * 0.999
    found = compare(
        trained, anomaly([0.5 + step], [False]), ANOMALY, threshold=0.5, tolerance=nearer
    )
    assert found.flipped_decisions == 1
    tied = (level(3, 0.5, 0.5 - step), level(7, 0.5, 0.5 - step))
    assert compare(*tied, LEVEL, tolerance=step).flipped_decisions == 0
    assert compare(*tied, LEVEL, tolerance=nearer).flipped_decisions == 1


def test_the_first_class_is_a_class_like_any_other():
    trained, exported = level(3, 0.5, 0.0), level(0, 0.5, 0.0)
    for answers in (trained, exported):
        answers["probabilities"][0, 0] = 0.49995
    assert compare(trained, exported, LEVEL).flipped_decisions == 0


def test_decisions_that_agree_need_no_threshold():
    assert compare(anomaly([0.9], [True]), anomaly([0.9], [True]), ANOMALY).equal


def test_a_swap_to_a_class_that_was_not_in_the_tie_is_a_flip():
    found = compare(level(3, 0.5, 0.49999), level(9, 0.5, 0.49999), LEVEL)
    assert found.flipped_decisions == 1


@pytest.mark.parametrize("chosen", [-1, 10])
def test_a_class_that_does_not_exist_is_a_flip(chosen):
    assert compare(level(3, 0.9, 0.1), level(chosen, 0.9, 0.1), LEVEL).flipped_decisions == 1


@pytest.mark.parametrize("answer", [math.nan, math.inf, -math.inf])
def test_an_export_that_predicts_no_number_fails_and_the_record_survives_json(answer):
    found = compare(throughput(1.0, 2.0), throughput(1.0, answer), THROUGHPUT)
    assert found.largest_relative_difference == NOT_A_NUMBER
    assert not found.equal
    assert Parity.model_validate_json(found.to_json()) == found


@pytest.mark.parametrize("answer", [math.nan, math.inf])
def test_a_model_that_predicts_no_number_can_not_be_exported(answer):
    with pytest.raises(ExportFailed, check=about(ErrorCode.NOT_FINITE, "next_throughput_mbps")):
        compare(throughput(1.0, answer), throughput(1.0, answer), THROUGHPUT)


def test_the_contract_is_held_on_both_sides():
    good = anomaly([0.1], [False])
    wrong = {
        "a missing output": {"anomaly_score": good["anomaly_score"]},
        "an extra output": good | {"label": good["is_anomaly"]},
        "another dtype": good | {"anomaly_score": good["anomaly_score"].astype(np.float64)},
        "a decision as a number": good | {"is_anomaly": good["is_anomaly"].astype(np.int64)},
        "another shape": good | {"anomaly_score": good["anomaly_score"][:, None]},
        "another number of rows": anomaly([0.1, 0.2], [False, False]),
    }
    for answers in wrong.values():
        for reference, candidate in ((good, answers), (answers, good)):
            with pytest.raises(ExportFailed, match="the contract requires"):
                compare(reference, candidate, ANOMALY, threshold=0.5)


def test_nothing_is_not_equal_to_nothing():
    empty = {"next_throughput_mbps": np.empty(0, dtype=np.float32)}
    with pytest.raises(ExportFailed, check=about(ErrorCode.NO_DATA)):
        compare(empty, empty, THROUGHPUT)


def test_a_decision_without_a_threshold_or_classes_is_refused_not_passed():
    with pytest.raises(ExportFailed, check=about(ErrorCode.MISSING, "threshold")):
        compare(anomaly([0.9], [True]), anomaly([0.9], [False]), ANOMALY)
    lone = (replace(LEVEL[0]),)
    one, other = ({"compression_level": np.array([value])} for value in (1, 2))
    with pytest.raises(ExportFailed, check=about(ErrorCode.MISSING, "classes")):
        compare(one, other, lone)


def test_the_reason_names_the_export_and_the_number():
    def found(difference: float, flips: int) -> Parity:
        return Parity(
            rows=12_345,
            largest_relative_difference=difference,
            flipped_decisions=flips,
            tolerance=1e-4,
        )

    assert parity_fault({"onnx": found(5e-5, 0), "keras": found(1e-4, 0)}) is None
    reason = parity_fault({"onnx": found(2e-4, 0), "savedmodel": found(0, 3), "keras": found(0, 0)})
    assert reason == (
        "onnx differs from the trained model by 0.0002 where 0.0001 is tolerated on 12,345 inputs; "
        "savedmodel flips 3 decisions on 12,345 inputs."
    )
