"""The pipeline that validates a data set of several files in several tasks."""

import subprocess
import sys

import pandas as pd
import pytest
import yaml

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.records import DataReport
from dwcp_ml.storage.partitions import partitions_of
from dwcp_ml.training_run.dataset import digest_of, make_dataset, version_at
from dwcp_ml.training_run.options import run_options
from dwcp_ml.training_run.partition_tasks import list_groups, merge_groups, validate_group
from tests.errors import about


@pytest.fixture
def data_set(files, tmp_path):
    """Seven partitions in the order of time."""
    frame = pd.read_csv(files[0], parse_dates=["timestamp"])
    moments = frame["timestamp"].rank(method="dense")
    number = (7 * (moments - 1) // moments.max()).astype(int)
    for index, rows in frame.groupby(number):
        directory = tmp_path / "set" / f"part={index}"
        directory.mkdir(parents=True)
        rows.to_parquet(directory / "rows.parquet", index=False)
    return tmp_path / "set"


def validated(options, groups, tmp_path):
    paths = [tmp_path / f"group-{group.index}" for group in groups]
    for group in reversed(groups):
        validate_group(options, group, paths[group.index])
    return paths


def test_groups_are_all_partitions_in_their_order(data_set):
    options, parts = run_options(data_path=str(data_set)), partitions_of(str(data_set))
    for most, count in ((1, 1), (3, 3), (7, 7), (1000, 7)):
        groups = list_groups(options, most)
        assert [group.index for group in groups] == list(range(count))
        assert [part for group in groups for part in group.of(parts)] == list(parts)
        sizes = {len(group.of(parts)) for group in groups}
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.slow
def test_the_merged_dataset_is_that_of_one_task(data_set, files, tmp_path):
    md5 = version_at(str(data_set)).md5
    options = run_options(data_path=f"{data_set}#md5={md5}", incidents_path=str(files[1]))
    groups = list_groups(options, 3)
    paths = validated(options, groups, tmp_path)
    report = merge_groups(options, groups[0], paths, tmp_path / "merged")
    assert report == make_dataset(options, tmp_path / "alone")
    assert DataReport.read(tmp_path / "merged/validation.json") == report
    assert digest_of(tmp_path / "merged") == digest_of(tmp_path / "alone")


@pytest.mark.slow
def test_a_list_that_changes_between_the_tasks_is_refused(data_set, tmp_path):
    options = run_options(data_path=str(data_set))
    groups = list_groups(options, 2)
    paths = validated(options, groups, tmp_path)
    refused = pytest.raises(DataRefused, check=about(ErrorCode.CHANGED, str(data_set)))
    with refused:
        merge_groups(options, groups[0], paths[:1], tmp_path / "merged")
    (data_set / "part=7").mkdir()
    (data_set / "part=0/rows.parquet").rename(data_set / "part=7/rows.parquet")
    with refused:
        validate_group(options, groups[0], tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_groups_of_a_window_hold_the_files_of_its_days(files, tmp_path):
    """And their tasks give the dataset of one task on one machine."""
    frame = pd.read_csv(files[0], parse_dates=["timestamp"])
    start = frame["timestamp"].min().normalize()
    frame["timestamp"] = start + (frame["timestamp"] - start) * 20  # five days
    for day, rows in frame.groupby(frame["timestamp"].dt.date):
        directory = tmp_path / "set" / f"date={day}"
        directory.mkdir(parents=True)
        rows.to_parquet(directory / "rows.parquet", index=False)
    days = sorted(path.name[5:] for path in (tmp_path / "set").iterdir())
    assert len(days) == 5
    for day in (days[0], days[4]):
        (tmp_path / f"set/date={day}/rows.parquet").write_bytes(b"never read")
    options = run_options(
        data_path=str(tmp_path / "set"), data_start=days[2], data_end=f"{days[2]}T12:00:00Z"
    )
    groups = list_groups(options, 2)
    assert len({group.digest for group in groups}) == 1
    assert [str(group.skipped) for group in groups] == [
        f"2 files of {days[0]} to {days[4]} were not read"
    ] * 2
    paths = validated(options, groups, tmp_path)
    report = merge_groups(options, groups[0], paths, tmp_path / "merged")
    assert report == make_dataset(options, tmp_path / "alone")
    assert (report.files_outside_window, report.first_timestamp[:10]) == (2, days[2])
    assert f"{days[2]}T11:00:00Z" < report.last_timestamp < report.data_end
    later = run_options(data_path=options.data_path, data_start="2100-01-01")
    with pytest.raises(DataRefused, check=about(ErrorCode.NO_DATA, options.data_path)):
        list_groups(later, 2)


def test_files_and_simulated_telemetry_need_the_other_pipeline(files):
    for path in ("", str(files[0])):
        with pytest.raises(UsageError, check=about(ErrorCode.UNSUPPORTED, "data_path")):
            list_groups(run_options(data_path=path), 3)


LOCAL = """
import sys
from kfp import dsl, local
from pipelines.training import validated_in_groups

@dsl.pipeline
def validation(data_path: str, incidents_path: str, data_start: str,
               packet_loss_unit: str = "fraction",
               congestion_window_unit: str = "bytes", version: str = "1") -> str:
    source = {"data_path": data_path, "data_start": data_start, "data_end": "",
              "models": "bandwidth_predictor",
              "packet_loss_unit": packet_loss_unit,
              "congestion_window_unit": congestion_window_unit}
    named = {"incidents_path": incidents_path, "version": version}
    return validated_in_groups(3, source, named, lambda task, name: task).outputs["data_digest"]

if __name__ == "__main__":
    root, data_path, incidents_path, data_start = sys.argv[1:]
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=root, raise_on_error=True)
    validation(data_path=data_path, incidents_path=incidents_path, data_start=data_start)
"""


@pytest.mark.pipeline
def test_kubeflows_local_runner_runs_the_loop_over_the_groups(data_set, files, tmp_path):
    script = tmp_path / "local_run.py"
    script.write_text(LOCAL)
    root = tmp_path / "kfp"
    start = pd.read_csv(files[0])["timestamp"].max()[:10] + "T02:00:00Z"
    (data_set / "date=2020-01-01").mkdir()
    (data_set / "date=2020-01-01/rows.parquet").write_bytes(b"never read")
    words = [sys.executable, str(script), str(root), str(data_set), str(files[1]), start]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (merged,) = root.glob("*/validate-data/dataset")
    options = run_options(
        data_path=str(data_set),
        incidents_path=str(files[1]),
        models="bandwidth",
        data_start=start,
    )
    report = make_dataset(options, tmp_path / "alone")
    assert DataReport.read(merged / "validation.json") == report
    assert (report.files_outside_window, report.first_timestamp) == (1, start)
    assert report.rows_outside_window > 0
    assert digest_of(merged) == digest_of(tmp_path / "alone")


@pytest.mark.slow
def test_the_compiled_pipeline_has_a_loop_and_the_same_tasks_after_it(tmp_path):
    file = tmp_path / "partitions.yaml"
    done = subprocess.run(
        [sys.executable, "-m", "dwcp_ml.cli", "pipeline", "compile", "--output", str(file),
         "--models", "bandwidth", "--partitions", "40"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    spec, platform = yaml.safe_load_all(file.read_text())
    tasks = spec["root"]["dag"]["tasks"]
    (loop,) = (task for task in tasks.values() if "parameterIterator" in task)
    assert loop["taskInfo"] == {"name": "partitions"}
    listing = tasks["list-partitions"]["inputs"]["parameters"]
    assert listing["groups"]["runtimeValue"] == {"constant": 40}
    one = tmp_path / "one.yaml"
    subprocess.run([*done.args[:6], str(one), *done.args[7:9]], check=True, timeout=120)
    alone, _ = yaml.safe_load_all(one.read_text())
    usual = alone["root"]["dag"]["tasks"]
    after = {name for name in usual if "condition" not in name}
    new = {name for name in tasks if "condition" not in name} - after
    assert new == {"list-partitions", "for-loop-1"}
    for name in after - {"validate-data"}:
        assert tasks[name] == usual[name]
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    windows = {"data_start", "data_end"}
    inner = spec["components"][loop["componentRef"]["name"]]["dag"]["tasks"]
    for task in (tasks["list-partitions"], tasks["validate-data"], *inner.values()):
        assert windows <= {name.split("--")[-1] for name in task["inputs"]["parameters"]}
    readers = ("exec-list-partitions", "exec-validate-partitions", "exec-validate-data")
    assert pods[readers[0]] == pods[readers[1]] == pods[readers[2]]
