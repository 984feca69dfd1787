"""A data set of several files gives the report, and the clean rows, of one file with all rows."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.partials import MergeObstacle, NotMergeable, StoredPartial, merged_scan
from dwcp_ml.data.partition_validation import (
    merge_partitions,
    validate_partition,
    validate_partitions,
)
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import InvalidTelemetry, validate
from dwcp_ml.data.validation_report import Request, task_of
from dwcp_ml.data.versioning import file_version
from dwcp_ml.storage.partitions import parquet_files
from tests.data.conftest import START, make_telemetry
from tests.errors import about
from tests.matrix import examples

ALL = tuple(MODELS.values())
NUMBER = "throughput_mbps"


def write_set(directory, frames):
    directory.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames):
        frame.to_parquet(directory / f"part-{index:03d}.parquet", index=False)
    return directory


def cut(frame, bounds):
    edges = [0, *sorted(bounds), len(frame)]
    return [frame.iloc[a:b] for a, b in pairwise(edges)]


def result(check):
    """The report, accepted or not."""
    try:
        return check()
    except InvalidTelemetry as error:
        return error.report


def comparable(report):
    """What does not depend on the files: not the path, the version, and the examples of gaps."""
    defects = tuple(
        d.replace(examples=()) if d.code == "gap" else d.replace(message=d.message)
        for d in report.defects
    )
    return report.replace(path="", md5="", size_bytes=0, defects=defects)


def both(tmp_path, frame, parts, **options):
    """The reports of one file and of its partitions."""
    options = {"specs": ALL, **options}
    whole = tmp_path / "telemetry"
    frame.to_parquet(whole, index=False)
    directory = write_set(tmp_path / "set", parts)
    one = result(lambda: validate(whole, **options))
    many = result(lambda: validate_partitions(str(whole), parquet_files(directory), **options))
    return one, many


def with_defects(frame, rng, share):
    """The frame with missing, infinite, negative and unknown cells, duplicates and gaps."""
    frame = frame.copy()
    rows = len(frame)

    def some():
        return np.flatnonzero(rng.random(rows) < share)

    frame.loc[some(), NUMBER] = np.nan
    frame.loc[some(), "rtt_ms"] = -1.0
    frame.loc[some(), "jitter_ms"] = np.inf
    frame.loc[some(), "link_type"] = "lan"
    frame.loc[some(), "timestamp"] = pd.Timestamp("1980-01-01")
    frame = frame.drop(index=some())
    again = frame.iloc[np.sort(rng.integers(0, len(frame), int(share * rows)))]
    return pd.concat([frame, again]).sort_values("timestamp", kind="stable", ignore_index=True)


@pytest.mark.slow
@settings(max_examples=examples(25), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.01, 0.04, 0.2]),
    cuts=st.lists(st.integers(1, 39), min_size=1, max_size=9),
    shuffled=st.booleans(),
    labels=st.booleans(),
)
def test_partitions_in_the_order_of_time_give_the_report_of_one_file(
    tmp_path_factory, seed, share, cuts, shuffled, labels
):
    rng = np.random.default_rng(seed)
    frame = with_defects(make_telemetry(links=4, seed=seed, labels=labels), rng, share)
    moments = pd.to_datetime(START + 60 * np.array(sorted(cuts)), unit="s")
    groups = np.searchsorted(moments, frame["timestamp"], side="right")
    frame = frame.iloc[np.argsort(groups, kind="stable")]
    if shuffled:  # within the partitions
        frame = frame.iloc[np.lexsort((rng.random(len(frame)), np.sort(groups)))]
    parts = cut(frame, np.flatnonzero(np.diff(np.sort(groups))) + 1)
    one, many = both(tmp_path_factory.mktemp("t"), frame, parts)
    assert comparable(many) == comparable(one)


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1000), bounds=st.lists(st.integers(1, 150), min_size=1, max_size=5))
def test_partitions_that_overlap_in_time_give_it_as_well(tmp_path_factory, seed, bounds):
    rng = np.random.default_rng(seed)
    frame = with_defects(make_telemetry(links=4, seed=seed), rng, 0.02)
    frame = frame.iloc[rng.permutation(len(frame))]
    one, many = both(tmp_path_factory.mktemp("t"), frame, cut(frame, bounds))
    assert comparable(many) == comparable(one)


def test_defects_that_span_partitions_are_found(tmp_path, telemetry, defect_of):
    half = len(telemetry) // 2
    first, second = telemetry.iloc[:half], telemetry.iloc[half:]
    later = second.assign(timestamp=second["timestamp"] + pd.Timedelta(hours=1))
    frame = pd.concat([first, later])
    one, many = both(tmp_path, frame, [first, later])
    assert defect_of(many, "gap").count == 3
    assert defect_of(many, "gap").examples == defect_of(one, "gap").examples == (61, 62, 63)
    repeated = pd.concat([first, first.iloc[-1:], second], ignore_index=True)
    (tmp_path / "2").mkdir()
    one, many = both(tmp_path / "2", repeated, [first, repeated.iloc[half:]])
    assert defect_of(many, "duplicate").examples == (half + 1,)
    assert comparable(many) == comparable(one)


def test_a_label_that_is_empty_in_one_partition_only_is_not_ignored(tmp_path, telemetry):
    telemetry["is_high_latency"] = telemetry["is_high_latency"].astype(float)
    telemetry.loc[:59, "is_high_latency"] = np.nan
    one, many = both(tmp_path, telemetry, cut(telemetry, [60]))
    assert comparable(many) == comparable(one)
    assert many.rows_quarantined == 60
    telemetry["is_high_latency"] = np.nan
    (tmp_path / "2").mkdir()
    one, many = both(tmp_path / "2", telemetry, cut(telemetry, [60]))
    assert comparable(many) == comparable(one)
    assert many.rows_quarantined == 0


@pytest.mark.parametrize("overlap", [False, True])
def test_clean_and_quarantined_rows_are_those_of_one_file(tmp_path, telemetry, overlap):
    frame = with_defects(telemetry, np.random.default_rng(3), 0.01)
    if overlap:
        frame = frame.iloc[np.random.default_rng(4).permutation(len(frame))]
    frame["datacenter_id"] = ['a "quoted", one'] * len(frame)
    bound = int(np.searchsorted(frame["timestamp"], pd.Timestamp(START + 600, unit="s")))
    parts = cut(frame, [60 if overlap else bound])
    outputs = tmp_path / "one", tmp_path / "many"
    one, _ = both(tmp_path, frame, parts, output=outputs[0])
    many = validate_partitions("set", parquet_files(tmp_path / "set"), specs=ALL, output=outputs[1])
    assert DataReport.read(outputs[1] / "validation.json") == many
    columns = [name for name in one.columns if name != "datacenter_id"]
    frames = [load(output / "telemetry.parquet", columns) for output in outputs]
    pd.testing.assert_frame_equal(*frames)
    quarantines = [(output / "quarantine.csv").read_text() for output in outputs]
    assert quarantines[0] == quarantines[1]
    assert len(quarantines[0].splitlines()) == one.rows_quarantined + 1
    assert (outputs[1] / "telemetry.parquet").is_dir() != overlap
    assert sorted(path.name for path in outputs[1].iterdir()) == [
        "quarantine.csv", "telemetry.parquet", "validation.json",
    ]  # fmt: skip
    # A second run replaces the partitions, also by those of a smaller data set.
    write_set(tmp_path / "small", [frame.iloc[:60]])
    smaller = parquet_files(tmp_path / "small")
    again = validate_partitions("set", smaller, specs=ALL, output=outputs[1])
    assert len(load(outputs[1] / "telemetry.parquet", [])) == again.rows - again.rows_quarantined


def test_partitions_that_were_validated_apart_are_merged_by_another_task(tmp_path, telemetry):
    parts = parquet_files(write_set(tmp_path / "set", cut(telemetry, [30, 60])))
    options = {"specs": ALL, "now": START + 1e6}
    directories = []
    for part in reversed(parts):
        directory = tmp_path / part.name.partition(".")[0]
        directory.mkdir()
        request = Request(part.address, output=directory, **options)
        StoredPartial.write(directory, validate_partition(request, part, directory))
        directories.append(directory)
    merged = merge_partitions("set", directories, output=tmp_path / "merged", **options)
    alone = validate_partitions("set", parts, output=tmp_path / "alone", **options)
    assert merged == alone
    frames = [load(tmp_path / name / "telemetry.parquet", []) for name in ("merged", "alone")]
    pd.testing.assert_frame_equal(*frames)
    assert all((directory / "telemetry.parquet").exists() for directory in directories)
    with pytest.raises(DataRefused, check=about(ErrorCode.CONTRACT, MergeObstacle.SETTINGS)):
        merge_partitions("set", directories, **{**options, "now": START + 2e6})


def test_what_can_not_be_merged_is_named(tmp_path, telemetry):
    parts = parquet_files(write_set(tmp_path / "set", cut(telemetry, [61])))  # within a moment
    request = Request("set", specs=ALL)
    reports = [validate_partition(request, part, tmp_path) for part in parts]
    partials = []
    for index, report in enumerate(reports):
        (tmp_path / str(index)).mkdir()
        partials.append(StoredPartial.write(tmp_path / str(index), report))
    source = pq.ParquetFile(tmp_path / "set/part-000.parquet")
    assert source.metadata.num_rows == partials[0].rows
    from dwcp_ml.data.partition_validation import _source

    task = task_of(request, _source(request, partials), tmp_path)
    with pytest.raises(NotMergeable) as caught:
        merged_scan(task, partials)
    error = caught.value
    assert (error.obstacle, error.partition) == (MergeObstacle.OVERLAP, "part-001.parquet")
    assert error.series == "n0"
    assert [partial.read() for partial in partials] == reports


def test_partitions_with_other_columns_or_broken_ones_are_refused_by_name(tmp_path, telemetry):
    directory = write_set(tmp_path / "set", cut(telemetry, [60]))
    other = directory / "part-001.parquet"
    telemetry.iloc[60:].drop(columns="datacenter_id").to_parquet(other, index=False)
    with pytest.raises(InvalidTelemetry, match=r"datacenter_id.*part-001") as caught:
        validate_partitions("set", parquet_files(directory), specs=ALL)
    assert caught.value.subject == "partition_columns"
    telemetry.iloc[60:].drop(columns="rtt_ms").to_parquet(other)
    with pytest.raises(InvalidTelemetry) as caught:
        validate_partitions("set", parquet_files(directory), specs=ALL)
    assert caught.value.subject == "missing_column"
    other.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(InvalidTelemetry, match="part-001") as caught:
        validate_partitions("set", parquet_files(directory), specs=ALL, output=tmp_path / "out")
    assert caught.value.subject == "unreadable"
    assert not (tmp_path / "out").exists()
    other.write_text("timestamp\n1\n")
    with pytest.raises(InvalidTelemetry, match="part-001") as caught:
        validate_partitions("set", parquet_files(directory), specs=ALL)
    assert caught.value.subject == "binary"


def test_empty_partitions_are_no_defect(tmp_path, telemetry):
    empty = telemetry.iloc[:0]
    one, many = both(tmp_path, telemetry, [empty, *cut(telemetry, [60]), empty])
    assert comparable(many) == comparable(one)


def test_hive_directories_hold_keys_and_categories_that_the_files_lack(tmp_path, telemetry):
    telemetry["network_tier"] = np.where(np.arange(len(telemetry)) < 60, "tier1", "tier2")
    for tier, frame in telemetry.groupby("network_tier"):
        directory = tmp_path / "set" / "date=2024-01-01" / f"network_tier={tier}"
        write_set(directory, [frame.drop(columns="network_tier")])
    parts = parquet_files(tmp_path / "set")
    report = validate_partitions("set", parts, specs=ALL, output=tmp_path / "out")
    assert report.rows_quarantined == 0
    clean = load(tmp_path / "out/telemetry.parquet", ["network_tier"])
    assert clean["network_tier"].value_counts().to_dict() == {"tier1": 60, "tier2": 60}


def test_the_md5_of_a_data_set_is_that_of_its_list_of_files(tmp_path, telemetry):
    import hashlib

    directory = write_set(tmp_path / "set", cut(telemetry, [60]))
    lines = [
        f"{hashlib.md5(path.read_bytes()).hexdigest()} {path.stat().st_size} {path.name}\n"
        for path in sorted(directory.iterdir())
    ]
    expected = hashlib.md5("".join(lines).encode()).hexdigest()
    report = validate_partitions("set", parquet_files(directory), specs=ALL, expected_md5=expected)
    assert (report.md5, file_version(directory).md5) == (expected, expected)
    assert report.size_bytes == sum(path.stat().st_size for path in directory.iterdir())
    with pytest.raises(DataRefused, check=about(ErrorCode.CHANGED, "set")):
        validate_partitions("set", parquet_files(directory), specs=ALL, expected_md5="0" * 32)
    (directory / "part-001.parquet").rename(directory / "part-002.parquet")
    assert file_version(directory).md5 != expected


def test_memory_does_not_hold_the_rows_of_a_partition(tmp_path, telemetry):
    """The record of a partition grows with its links and steps, not with its rows."""
    frames = [make_telemetry(steps=steps) for steps in (40, 400)]
    sizes = []
    for index, frame in enumerate(frames):
        parts = parquet_files(write_set(tmp_path / str(index), [frame]))
        partial = validate_partition(Request("set", specs=ALL), parts[0], tmp_path)
        sizes.append(len(partial.to_json()))
    assert sizes[1] < 1.1 * sizes[0]


def test_numbers_of_rows_continue_over_batches_and_partitions(tmp_path, telemetry, defect_of):
    telemetry.loc[100, NUMBER] = -5.0
    directory = tmp_path / "set"
    directory.mkdir()
    for index, frame in enumerate(cut(telemetry, [60])):
        table = pa.Table.from_pandas(frame, preserve_index=False)
        pq.write_table(table, directory / f"{index}.parquet", row_group_size=7)
    report = validate_partitions("set", parquet_files(directory), specs=ALL)
    assert defect_of(report, "out_of_range", NUMBER).examples == (101,)
