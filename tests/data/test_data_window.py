"""A data window gives the report, and the clean rows, of a file that was cut to it by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.partials import MergeObstacle, StoredPartial
from dwcp_ml.data.partition_validation import (
    merge_partitions,
    validate_partition,
    validate_partitions,
)
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import InvalidTelemetry, validate
from dwcp_ml.data.validation_report import Request
from dwcp_ml.storage.partitions import parquet_files
from dwcp_ml.training_run.dataset import validate_at, version_at
from tests.data.conftest import START, make_telemetry
from tests.data.test_partitions import ALL, NUMBER, cut, result, with_defects, write_set
from tests.errors import about
from tests.matrix import examples


def between(first, last):
    """The window from one step of the telemetry to another, which is not in it."""
    start, end = (None if step is None else 1000 * (START + 60 * step) for step in (first, last))
    return DataWindow(start=start, end=end)


def positions(frame, window):
    """Where the rows that a window uses are: also those without a readable time."""
    time = pd.to_datetime(frame["timestamp"], errors="coerce", format="mixed")
    milliseconds = (time - pd.Timestamp(0)) / pd.Timedelta(milliseconds=1)
    kept = np.ones(len(frame), bool)
    if window.start is not None:
        kept &= ~(milliseconds < window.start)
    if window.end is not None:
        kept &= ~(milliseconds >= window.end)
    return np.flatnonzero(kept)


def counts(report, rows=None):
    """What two reports must have in common; ``rows`` are the numbers that the rows had before."""
    defects = {
        (each.code, each.column): (
            each.count,
            each.verdict,
            () if each.code == "gap" else tuple(_number(row, each, rows) for row in each.examples),
        )
        for each in report.defects
    }
    same = {
        "path": "", "md5": "", "size_bytes": 0, "data_start": None, "data_end": None,
        "rows_outside_window": 0, "defects": (),
    }  # fmt: skip
    return report.replace(**same), defects


def _number(row, defect, rows):
    return row if rows is None or defect.code == "unknown_column" else int(rows[row - 1]) + 1


def write(frame, path, form):
    if form == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    return path


BOUND = st.one_of(st.none(), st.integers(0, 40))


@pytest.mark.slow
@settings(max_examples=examples(30), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.01, 0.04, 0.2]),
    bounds=st.tuples(BOUND, BOUND).filter(lambda both: None in both or both[0] < both[1]),
    shuffled=st.booleans(),
    form=st.sampled_from(["csv", "parquet", "partitions"]),
    labels=st.booleans(),
)
def test_it_is_the_report_of_the_file_cut_by_hand(
    tmp_path_factory, seed, share, bounds, shuffled, form, labels
):
    rng, place = np.random.default_rng(seed), tmp_path_factory.mktemp("t")
    frame = with_defects(make_telemetry(links=4, seed=seed, labels=labels), rng, share)
    if shuffled:
        frame = frame.iloc[rng.permutation(len(frame))].reset_index(drop=True)
    window = between(*bounds)
    rows = positions(frame, window)
    options = {"specs": ALL}
    by_hand = write(frame.iloc[rows], place / "hand", "csv" if form == "csv" else "parquet")
    expected = result(lambda: validate(by_hand, output=place / "expected", **options))
    if form == "partitions":
        parts = parquet_files(write_set(place / "set", cut(frame, [50, 51, 100])))
        report = result(
            lambda: validate_partitions(
                "set", parts, output=place / "out", window=window, **options
            )
        )
    else:
        whole = write(frame, place / "whole", form)
        report = result(lambda: validate(whole, output=place / "out", window=window, **options))
    assert report.rows_outside_window == len(frame) - len(rows)
    if not len(rows):
        return
    actual, defects = counts(report)
    wanted, others = counts(expected, rows)
    if ("empty_window", None) in defects:
        defects["too_few_rows", None] = defects.pop(("empty_window", None))
    assert actual == wanted
    assert defects == others
    if not report.refused:
        pd.testing.assert_frame_equal(
            load(place / "out/telemetry.parquet", list(report.columns)),
            load(place / "expected/telemetry.parquet", list(report.columns)),
        )
        quarantined = [
            pd.read_csv(place / name / "quarantine.csv", dtype=str) for name in ("out", "expected")
        ]
        numbers = quarantined[1]["row"].astype(int).to_numpy()
        renumbered = [str(rows[number - 1] + 1) for number in numbers]
        quarantined[1]["row"] = pd.Series(renumbered, dtype=object)
        if form != "csv":  # text and numbers of a CSV are as they were written
            pd.testing.assert_frame_equal(*quarantined)
        assert quarantined[0]["row"].tolist() == quarantined[1]["row"].tolist()


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_start_is_in_the_window_and_the_end_is_not(tmp_path, telemetry, form):
    path = write(telemetry, tmp_path / "t", form)
    report = validate(path, specs=ALL, window=between(10, 20))
    assert (report.rows, report.rows_outside_window) == (30, 90)
    assert report.first_timestamp == report.data_start == "2024-01-01T00:10:00Z"
    assert report.last_timestamp == "2024-01-01T00:19:00Z"
    assert report.data_end == "2024-01-01T00:20:00Z"
    window = between(10, 20)
    window = DataWindow(start=window.start + 1, end=window.end + 1)
    later = validate(path, specs=ALL, window=window)
    assert (later.first_timestamp, later.last_timestamp) == (
        "2024-01-01T00:11:00Z",
        "2024-01-01T00:20:00Z",
    )


def test_without_a_window_nothing_is_outside(tmp_path, telemetry):
    report = validate(write(telemetry, tmp_path / "t", "csv"), specs=ALL)
    assert (report.data_start, report.data_end, report.rows_outside_window) == (None, None, 0)


def test_rows_outside_are_neither_defects_nor_nodes_nor_words(tmp_path, telemetry, defect_of):
    """The last batch has rows inside and outside: what only the others hold does not remain."""
    outside = telemetry.index >= 60
    telemetry["network_tier"] = np.where(outside, "tier2", "tier1")
    telemetry["node_id"] = np.where(outside, "late-" + telemetry["node_id"], telemetry["node_id"])
    telemetry.loc[outside, NUMBER] = -1.0
    for form in ("csv", "parquet"):
        path = write(telemetry, tmp_path / form, form)
        report = validate(path, specs=ALL, window=between(None, 20))
        assert (report.links, report.rows_quarantined, report.rows) == (3, 0, 60)
        assert defect_of(report, "constant_column", "network_tier").count == 60
        with pytest.raises(InvalidTelemetry):
            validate(path, specs=ALL)


def test_an_unreadable_time_is_a_defect_in_every_window(tmp_path, telemetry, defect_of):
    telemetry["timestamp"] = telemetry["timestamp"].astype(str)
    telemetry.loc[[3, 100], "timestamp"] = ["yesterday", ""]
    path = write(telemetry, tmp_path / "t.csv", "csv")
    report = validate(path, specs=ALL, window=between(10, 40), missing_value_threshold=0.1)
    assert defect_of(report, "unparsable_timestamp").examples == (4,)
    assert defect_of(report, "missing", "timestamp").examples == (101,)
    assert (report.rows, report.rows_quarantined, report.rows_outside_window) == (91, 2, 29)


def test_a_row_that_is_cut_off_is_found_after_rows_outside(tmp_path, telemetry, defect_of):
    path = write(telemetry, tmp_path / "t.csv", "csv")
    path.write_text(path.read_text()[:-30].rsplit(",", 3)[0])
    with pytest.raises(InvalidTelemetry) as refused:
        validate(path, specs=ALL, window=between(30, None))
    assert refused.value.subject == "truncated"
    assert defect_of(refused.value.report, "truncated").examples == (120,)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_empty_window_is_refused_with_the_times_that_there_are(tmp_path, telemetry, form):
    telemetry.loc[5, "timestamp"] = pd.Timestamp("1970-01-01")  # a clock that was never set
    path = write(telemetry, tmp_path / "t", form)
    with pytest.raises(InvalidTelemetry) as refused:
        validate(path, specs=ALL, window=between(40, 80), output=tmp_path / "out")
    assert refused.value.subject == "empty_window"
    assert str(refused.value) == (
        f"{path} has no usable row in the data window, from 2024-01-01T00:40:00Z and before "
        "2024-01-01T01:20:00Z: the others have times from 2024-01-01T00:00:00Z to "
        "2024-01-01T00:39:00Z; choose another window."
    )
    assert not (tmp_path / "out").exists()


def incident(first, last=None, node="n0"):
    times = [START + 60 * minute for minute in (first, first if last is None else last)]
    moments = [pd.Timestamp(time, unit="s").isoformat() for time in times]
    ends = {} if last is None else {"start": moments[0], "end": moments[1]}
    return {"timestamp": moments[0], "node_id": node, "incident_type": "crash", **ends}


def test_incidents_that_overlap_the_window_are_kept(tmp_path, telemetry, defect_of):
    kept = [incident(0, 10), incident(19, 30), incident(12), incident(34), incident(-4)]
    others = [incident(0, 9), incident(20, 30), incident(35), incident(-6)]
    file = tmp_path / "incidents.json"
    file.write_text(json.dumps([*others, *kept]))
    path = write(telemetry, tmp_path / "t", "csv")
    options = {"specs": ALL, "incidents_path": file, "window": between(10, 20)}
    report = validate(path, output=tmp_path / "out", **options)
    assert (report.incidents, report.incidents_outside_window) == (5, 4)
    written = json.loads((tmp_path / "out/incidents.json").read_text())
    assert [each["timestamp"] for each in written] == [f"{each['timestamp']}Z" for each in kept]
    file.write_text(json.dumps(others))
    report = validate(path, **options)
    assert (report.incidents, report.incidents_outside_window) == (0, 4)
    assert "overlaps the data window" in defect_of(report, "no_incidents").message


def by_day(directory, days=5, per_day=20):
    """A data set with a file for each day, from 2024-01-01 on."""
    frame = make_telemetry(steps=days * per_day, cadence=86_400 // per_day)
    for day, rows in frame.groupby(frame["timestamp"].dt.date):
        write_set(directory / f"date={day}", [rows])
    return frame, directory


def without(directory, *days):
    """Make the files of some days unreadable."""
    for day in days:
        (directory / f"date=2024-01-0{day}/part-000.parquet").write_bytes(b"never read")


def day(first, last):
    return DataWindow(start=1000 * (START + 86_400 * (first - 1)),
                      end=1000 * (START + 86_400 * (last - 1)))  # fmt: skip


def test_files_whose_date_is_outside_the_window_are_not_read(tmp_path):
    frame, directory = by_day(tmp_path / "set")
    by_hand = tmp_path / "hand.parquet"
    write(frame.iloc[positions(frame, day(1, 2))], by_hand, "parquet")
    expected = validate(by_hand, specs=ALL, output=tmp_path / "expected")
    without(directory, 3, 4, 5)  # the second day is read: its date may be that of another zone
    options = {"specs": ALL, "window": day(1, 2)}
    report = validate_at(str(directory), output=tmp_path / "out", **options)
    assert (report.rows, report.rows_outside_window, report.files_outside_window) == (60, 60, 3)
    assert counts(report.replace(files_outside_window=0)) == counts(expected)
    frames = [
        load(tmp_path / name / "telemetry.parquet", list(report.columns))
        for name in ("out", "expected")
    ]
    pd.testing.assert_frame_equal(*frames)
    assert DataReport.read(tmp_path / "out/validation.json") == report
    with pytest.raises(InvalidTelemetry) as refused:
        validate_at(str(directory), **{**options, "window": day(1, 3)})
    assert refused.value.subject == "binary"


def test_an_md5_is_that_of_all_files_so_all_are_read(tmp_path):
    frame, directory = by_day(tmp_path / "set")
    md5 = version_at(str(directory)).md5
    options = {"specs": ALL, "window": day(1, 2)}
    report = validate_at(f"{directory}#md5={md5}", **options)
    assert (report.md5, report.files_outside_window) == (md5, 0)
    assert report.rows_outside_window == len(frame) - 60
    assert validate_at(str(directory), **options).md5 != md5, "that of the files that were read"
    without(directory, 5)
    with pytest.raises(DataRefused):
        validate_at(f"{directory}#md5={md5}", **options)


def test_files_without_a_date_in_their_path_are_read(tmp_path, telemetry):
    for name in (
        "date=yesterday",
        "date=2024-13-01",
        "day=2020-01-01",
        "date=2020-W01-1",
        "date=2024-01-03/date=2020-01-01",
    ):
        write_set(tmp_path / "set" / name, [telemetry.iloc[:0]])
    write_set(tmp_path / "set/none", [telemetry])
    report = validate_at(str(tmp_path / "set"), specs=ALL, window=between(0, 10))
    assert (report.rows, report.files_outside_window) == (30, 0)


def test_a_window_without_files_is_refused_with_their_dates(tmp_path):
    _, directory = by_day(tmp_path / "set")
    with pytest.raises(DataRefused, check=about(ErrorCode.NO_DATA, str(directory))) as refused:
        validate_at(str(directory), specs=ALL, window=day(15, 20))
    assert "5 files of 2024-01-01 to 2024-01-05 were not read" in str(refused.value)
    with pytest.raises(InvalidTelemetry) as refused:
        validate_at(str(directory), specs=ALL, window=day(6, 7))
    assert refused.value.subject == "empty_window"
    assert "4 files of 2024-01-01 to 2024-01-04 were not read" in str(refused.value)


def test_partitions_of_another_window_are_not_merged(tmp_path, telemetry):
    parts = parquet_files(write_set(tmp_path / "set", cut(telemetry, [60])))
    directories = []
    for index, part in enumerate(parts):
        directories.append(tmp_path / str(index))
        directories[-1].mkdir()
        request = Request("set", specs=ALL, window=between(5, 30))
        partial = validate_partition(request, part, directories[-1])
        StoredPartial.write(directories[-1], partial)
    report = merge_partitions("set", directories, specs=ALL, window=between(5, 30))
    assert (report.rows, report.rows_outside_window) == (75, 45)
    for window in (between(5, 31), None):
        with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, MergeObstacle.SETTINGS)):
            merge_partitions("set", directories, specs=ALL, window=window)


def test_rows_of_partitions_keep_their_numbers(tmp_path, telemetry, defect_of):
    """Those outside are counted: a row can be found in the files."""
    telemetry.loc[telemetry.index >= 60, "timestamp"] += pd.Timedelta(hours=1)
    telemetry.loc[100, NUMBER] = -5.0
    parts = parquet_files(write_set(tmp_path / "set", cut(telemetry, [60])))
    options = {"specs": ALL, "window": between(10, None), "output": tmp_path / "out"}
    report = validate_partitions("set", parts, missing_value_threshold=0.1, **options)
    assert defect_of(report, "gap").examples == (61, 62, 63)
    assert defect_of(report, "out_of_range", NUMBER).examples == (101,)
    quarantined = pd.read_csv(tmp_path / "out/quarantine.csv")
    assert quarantined["row"].tolist() == [101]


def test_a_malformed_row_before_the_last_one_was_not_cut_off(tmp_path, telemetry, defect_of):
    path = write(telemetry, tmp_path / "t.csv", "csv")
    lines = path.read_text().splitlines()
    lines[100] = "2024-01-01"
    path.write_text("\n".join(lines))  # the last line is whole, and has no end
    options = {"specs": ALL, "missing_value_threshold": 0.1}
    report = validate(path, window=between(30, None), **options)
    assert defect_of(report, "malformed_row").examples == (100,)
    assert (report.rows, report.rows_outside_window) == (30, 90)
