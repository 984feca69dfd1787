"""Planted leaks are found, and honest telemetry is not accused."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import planted_leaks as planted
from dwcp_ml.contract.columns import GAIN_COLUMNS, column_of_feature
from dwcp_ml.contract.evaluation import Leak, LeakKind
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION, LATENCY, MODELS, RELIABILITY
from dwcp_ml.evaluation.leaks import describe
from dwcp_ml.evaluation.leaks.rows import split_copies
from tests.evaluation.cases import run

pytestmark = pytest.mark.slow

CASES = list(planted.cases())
QUICK = [
    case
    for case in CASES
    if case[1] in (COMPRESSION, RELIABILITY) or case[0] in ("exact copy", "copy with 30% noise")
]


@pytest.fixture(scope="module")
def telemetry():
    return planted.honest(3, days=2)


def of_column(leaks, column):
    return {leak.kind for leak in leaks if leak.column == column}


@pytest.mark.parametrize("spec", MODELS.values(), ids=lambda spec: spec.short_name)
def test_honest_telemetry_is_not_accused(telemetry, spec):
    assert planted.found(telemetry, spec) == ()


@pytest.mark.parametrize(
    ("plant", "spec", "column"),
    [pytest.param(case[2], case[1], case[3], id=f"{case[1].short_name}: {case[0]}")
     for case in CASES if case in QUICK],
)  # fmt: skip
def test_a_planted_leak_is_found(telemetry, plant, spec, column):
    assert of_column(planted.found(plant(telemetry, spec), spec), column)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "spec", "column"),
    [pytest.param(case[2], case[1], case[3], id=f"{case[1].short_name}: {case[0]}")
     for case in CASES if case not in QUICK],
)  # fmt: skip
def test_every_other_planted_leak_is_found(telemetry, plant, spec, column):
    assert of_column(planted.found(plant(telemetry, spec), spec), column)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 42, 1001])
@pytest.mark.parametrize(
    "settings",
    [{}, {"incident_severity": 0.5}, {"incident_severity": 1.5}, {"gauge_noise": 0.5},
     {"throughput_noise": 0.02, "latency_noise": 0.025}],
    ids=str,
)  # fmt: skip
def test_no_variation_is_accused(seed, settings):
    other = planted.honest(seed, days=2, **settings)
    assert [planted.found(other, spec) for spec in MODELS.values()] == [()] * 4


def test_the_kind_says_what_the_column_holds(telemetry):
    now = planted.found(planted.copied(telemetry, RELIABILITY, 0.08), RELIABILITY)
    later = planted.found(planted.copied(telemetry, RELIABILITY, 0.08, 2), RELIABILITY)
    assert [(leak.kind, leak.steps_ahead) for leak in now] == [(LeakKind.LABEL_COPY, 0)]
    assert [(leak.kind, leak.steps_ahead) for leak in later] == [(LeakKind.FOREKNOWLEDGE, 2)]


def test_a_leak_of_throughput_names_the_steps_ahead(telemetry):
    for ahead in (0, 1):
        spoilt = planted.copied(telemetry, BANDWIDTH, 0.08, ahead)
        (leak,) = planted.found(spoilt, BANDWIDTH)
        assert (leak.kind, leak.column) == (LeakKind.FOREKNOWLEDGE, "jitter_ms")
        assert leak.steps_ahead == ahead + 1
        assert leak.statistic > leak.limit


def test_a_moving_average_around_the_present_is_a_leak(telemetry):
    frame = telemetry.frame.sort_values([*planted.LINK, "timestamp"])
    rolling = frame.groupby(planted.LINK)["throughput_mbps"].rolling(3, center=True, min_periods=1)
    frame["jitter_ms"] = rolling.mean().to_numpy()
    spoilt = planted.Telemetry(frame, telemetry.incidents)
    assert of_column(planted.found(spoilt, BANDWIDTH), "jitter_ms") == {LeakKind.FOREKNOWLEDGE}


def test_a_copy_of_the_past_is_no_leak(telemetry):
    frame = telemetry.frame.sort_values([*planted.LINK, "timestamp"])
    for rows in (0, 1, 5):
        values = frame.groupby(planted.LINK)["throughput_mbps"].shift(rows).bfill()
        spoilt = planted.Telemetry(frame.assign(jitter_ms=values), telemetry.incidents)
        assert planted.found(spoilt, BANDWIDTH) == ()


def test_a_shuffled_file_is_no_leak(telemetry):
    shuffled = telemetry.frame.sample(frac=1.0, random_state=0)
    spoilt = planted.Telemetry(shuffled, telemetry.incidents)
    for spec in (BANDWIDTH, RELIABILITY, LATENCY):
        assert planted.found(spoilt, spec) == ()
    backwards = planted.Telemetry(telemetry.frame[::-1], telemetry.incidents)
    assert planted.found(backwards, RELIABILITY) == ()


def test_quantised_telemetry_is_not_accused(telemetry):
    frame = telemetry.frame.copy()
    for column in ("throughput_mbps", "rtt_ms", "jitter_ms", "failure_rate", "packet_loss"):
        frame[column] = frame[column].map(lambda value: float(f"{value:.2g}"))
    for spec in (BANDWIDTH, RELIABILITY):
        assert planted.found(planted.Telemetry(frame, telemetry.incidents), spec) == ()


def test_rows_lost_at_random_are_no_leak(telemetry):
    lost = np.random.default_rng(0).random(len(telemetry.frame)) < 0.03
    spoilt = planted.Telemetry(
        telemetry.frame[~lost], telemetry.incidents, telemetry.frame[lost].reset_index(drop=True)
    )
    for spec in (COMPRESSION, RELIABILITY, LATENCY):
        assert planted.found(spoilt, spec) == ()


def without(telemetry, lost, **cells):
    """Quarantine the rows of a mask, with other cells."""
    gone = telemetry.frame[lost].reset_index(drop=True).assign(**cells)
    return planted.Telemetry(telemetry.frame[~lost], telemetry.incidents, gone)


@pytest.mark.parametrize("every", [500, 20])
def test_broken_sensor_rows_are_no_leak(telemetry, every):
    lost = np.arange(len(telemetry.frame)) % every == 3
    assert planted.found(without(telemetry, lost, throughput_mbps=0.001), BANDWIDTH) == ()
    gains = dict.fromkeys(GAIN_COLUMNS, 1.0)
    assert planted.found(without(telemetry, lost, **gains), COMPRESSION) == ()


@pytest.mark.parametrize("spec", [BANDWIDTH, RELIABILITY, LATENCY], ids=lambda s: s.short_name)
def test_a_few_rows_that_are_missing_in_incidents_are_no_leak(telemetry, spec):
    positive = planted.outcome(telemetry, RELIABILITY if spec == BANDWIDTH else spec) > 0
    lost = positive.to_numpy() & (np.random.default_rng(0).random(len(positive)) < 0.07)
    assert lost.sum() >= 80
    assert planted.found(without(telemetry, lost), spec) == ()


def test_repeated_outages_are_no_copies_across_the_split(telemetry):
    frame = telemetry.frame.copy()
    first, last = frame["timestamp"].min(), frame["timestamp"].max()
    down = frame["node_id"] == frame["node_id"].iloc[0]
    moments = frame["timestamp"]
    early = (moments > first + 3600) & (moments < first + 2 * 3600)
    down &= early | (moments > last - 2 * 3600)
    constant = frame[down].iloc[0]
    for name in MODELS[RELIABILITY.name].features + MODELS[BANDWIDTH.name].features:
        column = column_of_feature(name).name
        frame.loc[down, column] = constant[column]
    frame.loc[down, "consensus_latency_ms"] = constant["consensus_latency_ms"]
    spoilt = planted.Telemetry(frame, telemetry.incidents)
    for spec in (BANDWIDTH, RELIABILITY, LATENCY):
        assert LeakKind.SPLIT_COPY not in {leak.kind for leak in planted.found(spoilt, spec)}


def test_rows_that_are_independent_of_each_other_are_not_judged(telemetry):
    frame = telemetry.frame.copy()
    together = [name for name in frame if name not in ("timestamp", *planted.LINK)]
    rng = np.random.default_rng(0)
    for rows in frame.groupby(planted.LINK).groups.values():
        frame.loc[rows, together] = frame.loc[rng.permutation(rows), together].to_numpy()
    frame = frame.astype(telemetry.frame.dtypes)
    assert planted.found(planted.Telemetry(frame, telemetry.incidents), COMPRESSION) == ()


def test_the_split_of_few_examples_is_not_judged():
    inputs = np.random.default_rng(0).random((999, 4), np.float32)
    part = SimpleNamespace(inputs=inputs[:800], timestamp=np.arange(800.0))
    later = SimpleNamespace(inputs=inputs[600:799], timestamp=np.arange(800.0, 999.0))
    assert split_copies(SimpleNamespace(train=part, test=later)) == []
    part = SimpleNamespace(inputs=inputs[:801], timestamp=np.arange(800.0))
    assert [leak.column for leak in split_copies(SimpleNamespace(train=part, test=later))] == [
        "split"
    ]


def leak(accepted: bool) -> Leak:
    return Leak(
        kind=LeakKind.LABEL_COPY, column="rtt_ms", statistic=0.02, limit=0.12, accepted=accepted
    )


def test_the_evaluation_lists_leaks_and_notes_accepted_ones(bandwidth, trained):
    data, prediction = bandwidth
    predictions = {"next_throughput_mbps": prediction}
    for accepted in (False, True):
        evaluation, _ = run(data, predictions, trained(data), leaks=(leak(accepted),))
        assert evaluation.leaks == (leak(accepted),)
        assert evaluation.accepted_leaks == (("rtt_ms",) if accepted else ())
        assert any(describe(leak(True)) in note for note in evaluation.notes) == accepted


@pytest.mark.parametrize("kind", LeakKind)
def test_each_kind_is_described_with_its_column_and_numbers(kind):
    found = leak(accepted=False).replace(kind=kind, column="split")
    assert all(part in describe(found) for part in ("split", "0.02", "0.12"))


@pytest.mark.parametrize(
    ("kind", "statistic", "expected"),
    [
        (LeakKind.LABEL_COPY, 0.05, "0.05, at least 0.12 is expected"),
        (LeakKind.FOREKNOWLEDGE, 0.05, "0.05, at least 0.12 is expected"),
        (LeakKind.FOREKNOWLEDGE, 0.5, "0.5, at most 0.12 is expected"),
    ],
)
def test_the_side_of_the_limit_that_is_expected_is_said(kind, statistic, expected):
    assert expected in describe(leak(accepted=True).replace(kind=kind, statistic=statistic))


def test_only_a_column_is_to_be_removed():
    columns = {
        kind for kind in LeakKind
        if "Remove the column" in describe(leak(accepted=False).replace(kind=kind))
    }  # fmt: skip
    assert columns == set(LeakKind) - {
        LeakKind.ROW_ORDER, LeakKind.SPLIT_COPY, LeakKind.QUARANTINE
    }  # fmt: skip
