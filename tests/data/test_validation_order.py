"""The checks across rows: duplicates, order, gaps, peers that disagree."""

from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.models import LATENCY
from dwcp_ml.data import source, spill
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import InvalidTelemetry, validate
from tests.errors import about

pytestmark = pytest.mark.slow

START = pd.Timestamp("2024-01-01")


def test_repeated_rows_are_quarantined_and_the_first_is_kept(check, telemetry, tmp_path, defect_of):
    twice = telemetry.iloc[[0, 3]].assign(rtt_ms=77.0)
    report = check(pd.concat([telemetry, twice]), output=tmp_path / "out")
    defect = defect_of(report, "duplicate")
    assert (defect.verdict, defect.count, defect.examples) == ("quarantine", 2, (121, 122))
    clean = load(tmp_path / "out" / "telemetry.parquet", ["rtt_ms"])
    assert len(clean) == 120
    assert not (clean["rtt_ms"] == 77.0).any()


def test_rows_repeated_at_once_need_no_second_look(check, telemetry, defect_of):
    report = check(pd.concat([telemetry.iloc[:1], telemetry]))
    assert defect_of(report, "duplicate").examples == (2,)
    assert defect_of(report, "out_of_order") is None


def test_over_five_percent_of_repeated_rows_are_refused(check, telemetry):
    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, "too_many_invalid")) as error:
        check(pd.concat([telemetry, telemetry]))
    defect = error.value.report.defects[0]
    assert (defect.count, defect.examples[0]) == (120, 121)


def test_a_good_row_that_repeats_a_bad_one_is_kept(check, telemetry, defect_of):
    bad = telemetry.iloc[:1].assign(rtt_ms=-1.0)
    report = check(pd.concat([bad, telemetry]))
    assert defect_of(report, "duplicate") is None
    assert report.rows_quarantined == 1


def test_shuffled_rows_warn_and_are_sorted(check, telemetry, tmp_path, defect_of):
    shuffled = telemetry.sample(frac=1, random_state=1)
    report = check(shuffled, output=tmp_path / "out")
    assert defect_of(report, "out_of_order").verdict == "warning"
    assert [d.code for d in report.defects] == ["out_of_order"]
    assert report.cadence_seconds == 60.0
    loaded = load(tmp_path / "out" / "telemetry.parquet", telemetry.columns)
    check(telemetry, output=tmp_path / "sorted")
    assert loaded.equals(load(tmp_path / "sorted" / "telemetry.parquet", telemetry.columns))
    assert loaded["timestamp"].is_monotonic_increasing


def test_rows_grouped_by_link_are_in_order(check, telemetry):
    grouped = telemetry.sort_values(["node_id", "peer_id", "timestamp"])
    assert check(grouped).defects == ()


def test_gaps_are_counted_with_the_row_after_them(check, telemetry, monkeypatch, defect_of):
    frame = telemetry[
        ~telemetry["timestamp"].between(
            START + pd.Timedelta("10min"), START + pd.Timedelta("12min")
        )
    ]
    defect = defect_of(check(frame), "gap")
    assert (defect.verdict, defect.count, defect.examples) == ("warning", 3, (31, 32, 33))
    shuffled = frame.sample(frac=1, random_state=0)
    assert defect_of(check(shuffled), "gap").count == 3
    for rows in range(2, 40):  # wherever the parts of the spilled keys end
        monkeypatch.setattr(spill, "PART_ROWS", rows)
        assert defect_of(check(shuffled), "gap").count == 3


def test_peers_that_disagree_on_the_latency_of_a_node_are_refused(check, telemetry):
    telemetry.loc[30, "consensus_latency_ms"] += 0.5
    for frame in (telemetry, telemetry.sample(frac=1, random_state=0)):
        with pytest.raises(
            DataRefused, check=about(ErrorCode.CONTRACT, "consensus_disagreement")
        ) as error:
            check(frame)
        (defect,) = error.value.report.defects[:1]
        assert (defect.code, defect.count) == ("consensus_disagreement", 1)
    from dwcp_ml.contract.models import BANDWIDTH

    assert not check(telemetry, specs=[BANDWIDTH]).refused


@pytest.mark.parametrize("order", ["in order", "shuffled", "at the end"])
@pytest.mark.parametrize("clock", ["iso", "epoch"])
@pytest.mark.parametrize("block_bytes", [900, 1 << 21])
def test_a_repeated_row_is_no_peer_that_disagrees(
    check, make, monkeypatch, defect_of, tmp_path, order, clock, block_bytes
):
    """Eleven rows of a file with one peer were refused: "make its peers agree"."""
    monkeypatch.setattr(source, "BLOCK_BYTES", block_bytes)
    telemetry = make(links=1, steps=300)
    if clock == "epoch":
        telemetry["timestamp"] = telemetry["timestamp"].astype("int64") // 10**9
    repeated = telemetry.iloc[20:31]
    changed = repeated.assign(consensus_latency_ms=repeated["consensus_latency_ms"] + 1.0)
    frame = pd.concat([telemetry, changed], ignore_index=True)
    if order == "in order":
        frame = frame.sort_values("timestamp", kind="stable")
    elif order == "shuffled":
        frame = frame.sample(frac=1, random_state=0)
    report = check(frame, output=tmp_path / "out")
    assert defect_of(report, "duplicate").count == report.rows_quarantined == 11
    assert defect_of(report, "consensus_disagreement") is None
    kept = load(tmp_path / "out" / "telemetry.parquet", ["consensus_latency_ms"])
    first = frame.drop_duplicates("timestamp").sort_values("timestamp")
    np.testing.assert_allclose(kept["consensus_latency_ms"], first["consensus_latency_ms"])


def test_identical_rows_are_kept_once(check, telemetry, tmp_path, defect_of):
    report = check(pd.concat([telemetry, telemetry.iloc[[7]]]), output=tmp_path / "out")
    assert defect_of(report, "duplicate").count == 1
    assert len(load(tmp_path / "out" / "telemetry.parquet", [])) == len(telemetry)


def test_gaps_are_those_of_each_links_own_cadence(check, make, defect_of):
    """One link each 10 s, another each 60 s: neither has a gap but the one that is made here."""
    fast, slow = make(links=1, steps=600, cadence=10), make(links=1, steps=100, cadence=60)
    slow["node_id"] = "slow"
    both = pd.concat([fast, slow]).sort_values("timestamp", kind="stable")
    assert defect_of(check(both), "gap") is None
    late = both[(both["node_id"] != "slow") | ~both["timestamp"].between(
        START + pd.Timedelta("20min"), START + pd.Timedelta("21min"))]  # fmt: skip
    for frame in (late, late.sample(frac=1, random_state=0)):
        assert defect_of(check(frame), "gap").count == 1
    assert defect_of(check(late, gap_factor=3.0), "gap") is None
    assert defect_of(check(both[both.index % 2 == 0], gap_factor=1.5), "gap") is None


@pytest.mark.parametrize("block_bytes", [1000, 2000, 5000])
def test_blocks_of_any_size_say_the_same(check, telemetry, monkeypatch, block_bytes):
    telemetry.loc[[30, 61], "consensus_latency_ms"] += 0.5
    for frame in (telemetry, telemetry.sample(frac=1, random_state=0)):
        reports = []
        for size in (block_bytes, 1 << 21):
            monkeypatch.setattr(source, "BLOCK_BYTES", size)
            with pytest.raises(DataRefused) as error:
                check(pd.concat([frame.iloc[:40], frame.iloc[38:]]))
            reports.append(error.value.report)
        assert reports[0] == reports[1]
        assert reports[0].defects[0].count >= 2


def test_peers_may_be_apart_in_the_file(check, telemetry, monkeypatch):
    grouped = telemetry.sort_values(["node_id", "peer_id", "timestamp"]).reset_index(drop=True)
    assert check(grouped).defects == ()
    row = grouped.index[(grouped["node_id"] == "n0") & (grouped["peer_id"] == "p1")][4]
    grouped.loc[row, "consensus_latency_ms"] *= 2
    with pytest.raises(DataRefused, match=f"first is row {row + 1}"):
        check(grouped)


@pytest.mark.parametrize("part_rows", [3, 7, 1000])
def test_a_small_memory_finds_the_same(check, telemetry, monkeypatch, defect_of, part_rows):
    monkeypatch.setattr(spill, "PART_ROWS", part_rows)
    monkeypatch.setattr(source, "BLOCK_BYTES", 2000)
    frame = pd.concat([telemetry, telemetry.iloc[[5, 9, 9]]]).sample(frac=1, random_state=3)
    report = check(frame)
    assert defect_of(report, "duplicate").count == 3
    assert report.cadence_seconds == 60.0
    assert defect_of(report, "gap") is None


cells = st.lists(
    st.tuples(st.integers(0, 9), st.sampled_from("ab"), st.sampled_from("xy")),
    min_size=2,
    max_size=30,
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cells,
    st.sampled_from([2, 5, 1000]),
    st.sampled_from([40, 100, 10_000]),
    st.lists(st.sampled_from([1.0, 2.0]), min_size=30, max_size=30),
)
def test_duplicates_and_disagreements_equal_the_definition(
    tmp_path, rows, part_rows, block_bytes, values
):
    """A dictionary of all keys against the stream, in any order of rows."""
    frame = pd.DataFrame(
        {
            "timestamp": [START + pd.Timedelta(minutes=time) for time, _, _ in rows],
            "node_id": [node for _, node, _ in rows],
            "peer_id": [peer for _, _, peer in rows],
            "consensus_latency_ms": values[: len(rows)],
        }
    )
    first, latency, duplicates, disagreeing = {}, {}, [], []
    for number, key in enumerate(rows, 1):
        if key in first:
            duplicates.append(number)
            continue
        first[key] = number
    for number, (key, value) in enumerate(zip(rows, values, strict=False), 1):
        if number in duplicates:
            continue
        seen = latency.setdefault(key[:2], value)
        if seen != value:
            disagreeing.append(number)
    path = tmp_path / "telemetry.csv"
    frame.to_csv(path, index=False)
    with (
        mock.patch.object(spill, "PART_ROWS", part_rows),
        mock.patch.object(source, "BLOCK_BYTES", block_bytes),
    ):
        try:
            report = validate(path, specs=[LATENCY], missing_value_threshold=1.0)
        except InvalidTelemetry as error:
            report = error.report
    counts = {d.code: (d.count, d.examples) for d in report.defects}
    assert counts.get("duplicate", (0, ())) == (len(duplicates), tuple(duplicates[:5]))
    assert counts.get("consensus_disagreement", (0, ())) == (
        len(disagreeing),
        tuple(disagreeing[:5]),
    )
    newest, late = {}, 0
    for number, (time, node, peer) in enumerate(rows, 1):
        late += time < newest.get((node, peer), -1) and number not in duplicates
        newest[node, peer] = max(time, newest.get((node, peer), -1))
    assert counts.get("out_of_order", (0, ()))[0] == late
    clean = np.unique([hash(key) for key in rows])
    assert report.rows - report.rows_quarantined == len(clean)


def test_more_links_than_fit_a_key_are_refused(check, telemetry, monkeypatch):
    """Two of them would have the same key, and their rows be taken for duplicates."""
    monkeypatch.setattr("dwcp_ml.data.scanning.MAX_SERIES", 2)
    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, "too_many_links")):
        check(telemetry)
