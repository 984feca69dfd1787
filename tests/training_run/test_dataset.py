"""A dataset has the content that its path states, and later tasks check its digest."""

import hashlib

import pandas as pd
import pytest

from dwcp_ml.contract.errors import DataRefused, DwcpError, ErrorCode
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.reading import load
from dwcp_ml.data.validation import InvalidTelemetry
from dwcp_ml.storage.addresses import without_digest
from dwcp_ml.training_run.dataset import check_dataset, digest_of, make_dataset, version_at
from dwcp_ml.training_run.options import run_options
from tests.errors import about


def named(path):
    return f"{path}#md5={hashlib.md5(path.read_bytes()).hexdigest()}"


def test_a_path_may_end_with_its_md5():
    digest = "0123456789abcdef" * 2
    assert without_digest(f"s3://t/1.csv#md5={digest}") == ("s3://t/1.csv", digest)
    for path in ("/data/t.csv", "/data/#md5=1", f"/data/x#md5={digest}.csv", f"#md5={digest[:-1]}"):
        assert without_digest(path) == (path, None)


def test_a_file_with_the_expected_md5_is_read_and_another_is_rejected(files, tmp_path):
    telemetry, incidents = files
    options = run_options(data_path=named(telemetry), incidents_path=named(incidents))
    report = make_dataset(options, tmp_path / "dataset")
    assert report.path == str(telemetry)
    for changed in files:
        before = changed.read_bytes()
        changed.write_bytes(before + b"\n")
        with pytest.raises(DataRefused, match="it is another file, or it was changed"):
            make_dataset(options, tmp_path / "other")
        assert not (tmp_path / "other").exists()
        changed.write_bytes(before)


def test_the_digest_is_that_of_the_content_not_of_the_name(files, tmp_path):
    telemetry, _ = files
    copy = tmp_path / "copy.csv"
    copy.write_bytes(telemetry.read_bytes())
    for path, name in ((telemetry, "one"), (copy, "two")):
        make_dataset(run_options(data_path=str(path)), tmp_path / name)
    digest = digest_of(tmp_path / "one")
    assert digest == digest_of(tmp_path / "two")
    check_dataset(tmp_path / "two", digest)
    in_percent = run_options(data_path=str(copy), congestion_window_unit="segments")
    make_dataset(in_percent, tmp_path / "three")
    assert digest_of(tmp_path / "three") != digest, "the same file, read in another unit"
    with pytest.raises(DwcpError, check=about(ErrorCode.CHANGED, "three")):
        check_dataset(tmp_path / "three", digest)


@pytest.mark.slow
def test_data_in_an_object_store_are_read_and_reported_by_their_address(bucket, files, tmp_path):
    telemetry, incidents = files
    addresses = [bucket.put(f"data/{path.name}", path.read_bytes()) for path in files]
    make_dataset(
        run_options(data_path=str(telemetry), incidents_path=str(incidents)), tmp_path / "local"
    )
    md5 = named(telemetry).partition("#")[2]
    options = run_options(data_path=f"{addresses[0]}#{md5}", incidents_path=addresses[1])
    report = make_dataset(options, tmp_path / "remote")
    assert (report.path, report.incidents_path) == tuple(addresses)
    assert f"md5={report.md5}" == md5
    assert DataReport.read(tmp_path / "remote/validation.json") == report
    assert digest_of(tmp_path / "remote") == digest_of(tmp_path / "local")


@pytest.mark.slow
def test_an_object_that_is_missing_changed_or_wrong_is_named_by_its_address(bucket, tmp_path):
    address = bucket.address("t.csv")
    with pytest.raises(DataRefused, check=about(ErrorCode.MISSING, address)):
        make_dataset(run_options(data_path=address), tmp_path / "out")
    bucket.put("t.csv", b"a,b\n1,2\n")
    with pytest.raises(DataRefused, check=about(ErrorCode.CHANGED, address)):
        make_dataset(run_options(data_path=f"{address}#md5={'0' * 32}"), tmp_path / "out")
    with pytest.raises(InvalidTelemetry) as refused:
        make_dataset(run_options(data_path=address), tmp_path / "out")
    assert refused.value.report.path == address
    assert address in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_data_on_a_mounted_claim_are_read(files, tmp_path, monkeypatch):
    (tmp_path / "mounted").symlink_to(tmp_path)
    monkeypatch.setenv("DWCP_PVC_ROOT", str(tmp_path))
    address = "pvc://mounted/telemetry.csv"
    report = make_dataset(run_options(data_path=address), tmp_path / "out")
    assert report.path == address
    assert make_dataset(run_options(data_path=f"file://{files[0]}"), tmp_path / "o").rows


def partitioned(telemetry, directory):
    """The rows of a CSV file as two Parquet files, the first half of the time and the second."""
    frame = pd.read_csv(telemetry, parse_dates=["timestamp"])
    late = frame["timestamp"] > frame["timestamp"].median()
    for name, rows in (("half=1", frame[~late]), ("half=2", frame[late])):
        (directory / name).mkdir(parents=True)
        rows.to_parquet(directory / name / "part.parquet", index=False)
    return directory


def test_a_directory_of_partitions_gives_the_dataset_of_one_file(files, tmp_path):
    telemetry, incidents = files
    directory = partitioned(telemetry, tmp_path / "parts")
    reports = [
        make_dataset(
            run_options(data_path=str(path), incidents_path=str(incidents)), tmp_path / name
        )
        for path, name in ((telemetry, "one"), (directory, "many"))
    ]
    same = {"path": "", "md5": "", "size_bytes": 0}
    assert reports[0].replace(**same) == reports[1].replace(**same)
    assert reports[1].path == str(directory)
    assert version_at(str(directory)).md5 == reports[1].md5
    frames = [load(tmp_path / name / "telemetry.parquet", []) for name in ("one", "many")]
    pd.testing.assert_frame_equal(*frames)
    digest = digest_of(tmp_path / "many")
    check_dataset(tmp_path / "many", digest)
    (tmp_path / "many/telemetry.parquet/000001.parquet").unlink()
    with pytest.raises(DwcpError, check=about(ErrorCode.CHANGED, "many")):
        check_dataset(tmp_path / "many", digest)
    stated = f"{directory}/half=*#md5={reports[1].md5}"
    assert make_dataset(run_options(data_path=stated), tmp_path / "again").md5 == reports[1].md5


@pytest.mark.slow
def test_partitions_in_an_object_store_are_read_one_after_another(bucket, files, tmp_path):
    directory = partitioned(files[0], tmp_path / "parts")
    for path in directory.glob("*/*"):
        bucket.put(f"t/{path.relative_to(directory)}", path.read_bytes())
    address = f"{bucket.address('t')}/"
    report = make_dataset(run_options(data_path=address), tmp_path / "remote")
    local = make_dataset(run_options(data_path=str(directory)), tmp_path / "local")
    assert report == local.replace(path=address)
    assert digest_of(tmp_path / "remote") == digest_of(tmp_path / "local")
    bucket.put("t/half=2/part.parquet", b"PAR1")
    broken = f"{address}half=2/part.parquet"
    with pytest.raises(InvalidTelemetry) as caught:
        make_dataset(run_options(data_path=address), tmp_path / "out")
    assert broken in str(caught.value)


@pytest.mark.slow
def test_objects_of_days_outside_the_window_are_not_fetched(bucket, files, tmp_path):
    telemetry, incidents = files
    (day,) = pd.read_csv(telemetry, parse_dates=["timestamp"])["timestamp"].dt.date.unique()
    parts = partitioned(telemetry, tmp_path / "parts")
    for part in parts.rglob("*.parquet"):
        key = f"t/date={day}/{part.parent.name}.parquet"
        address = bucket.put(key, part.read_bytes()).removesuffix(key)
    for other in ("2020-01-01", "2024-12-31"):
        bucket.put(f"t/date={other}/rows.parquet", b"never read")
    window = {"data_start": str(day), "data_end": f"{day}T03:00:00Z"}
    options = {"incidents_path": str(incidents), **window}
    remote = run_options(data_path=f"{address}t/", **options)
    report = make_dataset(remote, tmp_path / "remote")
    assert report.files_outside_window == 2
    local = make_dataset(run_options(data_path=str(telemetry), **options), tmp_path / "local")
    assert local.rows == report.rows < pd.read_csv(telemetry).shape[0]
    assert local.rows_outside_window == report.rows_outside_window > 0
    frames = [load(tmp_path / name / "telemetry.parquet", []) for name in ("remote", "local")]
    pd.testing.assert_frame_equal(*frames)
    with pytest.raises(InvalidTelemetry):
        make_dataset(remote.replace(data_start="2024-12-31"), tmp_path / "again")
