"""What both detectors share: rates, alarms, and how few positives there may be."""

from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.evaluation.events import (
    false_alarms,
    false_alarms_per_day,
    false_alarms_per_link_day,
)
from tests.evaluation.cases import run


def test_the_false_positive_rate_is_of_the_normal_rows(build, examples, trained):
    truth = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    flagged = np.array([1, 1, 1, 1, 0, 0, 0], bool)
    for name, outputs in (
        ("reliability_detector", ("anomaly_score", "is_anomaly")),
        ("consensus_latency", ("reconstruction_error", "is_high_latency")),
    ):
        shape = (7, 6) if name == "reliability_detector" else (7, 20)
        data = build(name, test=examples(np.random.default_rng(0).random(shape), truth))
        evaluation, plot_data = run(
            data, dict(zip(outputs, (flagged * 1.0, flagged), strict=True)), trained(data)
        )
        assert evaluation.metrics["false_positive_rate"] == pytest.approx(1 / 4)
        assert evaluation.metrics["recall"] == 1.0
        assert evaluation.metrics["precision"] == pytest.approx(3 / 4)
        assert evaluation.metrics["prevalence"] == pytest.approx(3 / 7)
        if name == "reliability_detector":
            assert plot_data["prevalence"] == pytest.approx(3 / 7)
            assert plot_data["threshold"] == 0.5
        else:
            assert plot_data["errors_normal"].tolist() == [1, 0, 0, 0]
            assert plot_data["errors_high"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("positives", "noted"), [(4, True), (49, True), (50, False)])
def test_few_positives_are_noted_in_the_report(positives, noted, build, examples, trained):
    truth = np.arange(400) < positives
    event = np.where(truth, np.arange(400) // 2, -1)
    data = build(
        "reliability_detector",
        test=examples(np.random.default_rng(0).random((400, 6)), truth, event=event),
    )
    score = np.random.default_rng(1).random(400)
    evaluation, _ = run(data, {"anomaly_score": score, "is_anomaly": score > 0.9}, trained(data))
    words = f"Only {positives} of 400 test examples are positive, out of {(positives + 1) // 2} "
    assert any(words in note for note in evaluation.notes) == noted


def test_consecutive_rows_are_one_alarm_and_a_gap_or_another_link_ends_it(build, examples, trained):
    # Link 0: flagged at minutes 0 1 2, silent to minute 60, flagged again; link 1: at minute 0.
    timestamp = np.array([0, 0, 1, 2, 60]) * 60
    series = np.array([0, 1, 0, 0, 0])
    test = examples(np.zeros((5, 6)), np.zeros(5, bool), timestamp=timestamp, series=series)
    data = build("reliability_detector", test=test)
    flagged = np.ones(5, bool)
    evaluation, _ = run(data, {"anomaly_score": np.ones(5), "is_anomaly": flagged}, trained(data))
    # Three alarms in five minutes of observation, of two links.
    assert evaluation.metrics["false_alarms_per_day"] == pytest.approx(3 * 1440 / 5 * 2)
    assert evaluation.metrics["recall"] is None
    assert evaluation.metrics["event_recall"] is None


@pytest.mark.parametrize(("gap", "alarms"), [(60, 1), (150, 1), (151, 2), (180, 2)])
@pytest.mark.parametrize("cadences", [None, np.array([60.0])])
def test_an_alarm_continues_where_there_is_no_gap(gap, alarms, cadences, examples, build):
    def alarms_of(rows, flagged):
        data = build("reliability_detector", test=rows, cadences=cadences)
        return false_alarms(data, flagged)

    rows = examples(np.ones((3, 6)), np.zeros(3, bool), timestamp=[0, gap, gap + 60])
    assert alarms_of(rows, np.array([True, True, False])) == alarms
    assert alarms_of(rows, np.zeros(3, bool)) == 0
    hit = examples(np.ones((3, 6)), np.ones(3, bool))
    assert alarms_of(hit, np.ones(3, bool)) == 0


def a_day_of(steps, build, examples):
    """One day of links with their own steps in seconds, and four alarms on each."""
    rows = [int(86_400 / step) for step in steps]
    test = examples(
        np.ones((sum(rows), 6)),
        np.zeros(sum(rows), bool),
        timestamp=np.concatenate(
            [np.arange(n) * step for n, step in zip(rows, steps, strict=True)]
        ),
        series=np.repeat(np.arange(len(rows)), rows),
    )
    flagged = np.concatenate([np.arange(n) % (n // 4) == 0 for n in rows])
    fields = {"series": len(rows), "cadences": np.array(steps)}
    return build("reliability_detector", test=test, **fields), flagged


@pytest.mark.parametrize("fast", [0, 1, 2, 10])
def test_links_with_other_cadences_have_the_same_rate_of_alarms(fast, build, examples):
    data, flagged = a_day_of([60.0] * 10 + [10.0] * fast, build, examples)
    assert false_alarms_per_link_day(data, flagged) == pytest.approx(4.0)
    assert false_alarms_per_day(data, flagged) == pytest.approx(4.0 * (10 + fast))


def test_a_sample_of_the_rows_has_the_rate_of_all(build, examples):
    data, flagged = a_day_of([60.0] * 12, build, examples)
    # Every third block of six hours of a link, as a sample draws them; each holds one alarm.
    block = data.test.timestamp // 21_600
    drawn = (block + data.test.series) % 3 == 0
    sample = build("reliability_detector", test=data.test.take(drawn), series=12)
    assert false_alarms(sample, flagged[drawn]) == false_alarms(data, flagged) / 3
    assert false_alarms_per_day(sample, flagged[drawn]) == pytest.approx(48.0)


def test_no_row_gives_no_rate(build, examples):
    data = build("reliability_detector", test=examples(np.ones((0, 6)), np.zeros(0, bool)))
    assert np.isnan(false_alarms_per_day(data, np.zeros(0, bool)))
