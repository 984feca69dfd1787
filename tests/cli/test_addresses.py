"""Commands read data in an object store; it is a fake of S3."""

import hashlib
import json
import sys

import pytest

from dwcp_ml.cli import main
from dwcp_ml.cli.run_options import chosen_options
from tests.monitoring.replay import fake_predictions, prepared, replay

pytestmark = pytest.mark.slow


def test_a_uri_is_no_path_of_this_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    options = chosen_options({"data_path": "s3://b/t.csv", "incidents_path": "i.json"})
    assert options.data_path == "s3://b/t.csv"
    assert options.incidents_path == str(tmp_path / "i.json")


def test_telemetry_is_validated_and_versioned(bucket, files, capsys):
    telemetry, incidents = (bucket.put(path.name, path.read_bytes()) for path in files)
    assert main(["data", "validate", telemetry, "--incidents-path", incidents, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["path"], report["incidents_path"]) == (telemetry, incidents)
    assert main(["data", "version", telemetry, "--json"]) == 0
    version = json.loads(capsys.readouterr().out)
    assert version["path"] == telemetry
    assert version["md5"] == hashlib.md5(files[0].read_bytes()).hexdigest() == report["md5"]
    assert main(["data", "version", telemetry, "--dvc"]) == 2


def test_a_defect_is_reported_with_the_address(bucket, files, capsys):
    address = bucket.put("t.csv", files[0].read_bytes().replace(b"rtt_ms", b"rtt", 1))
    assert main(["data", "validate", address, "--json"]) == 4
    printed = capsys.readouterr()
    assert json.loads(printed.out)["path"] == address
    assert "/tmp" not in printed.out + printed.err


def test_what_is_missing_or_wrong_has_the_exit_code_of_its_kind(bucket, capsys, monkeypatch):
    assert main(["data", "validate", bucket.address("none.csv")]) == 4
    assert main(["data", "validate", "hdfs://node/t.csv"]) == 2
    monkeypatch.setitem(sys.modules, "s3fs", None)
    assert main(["data", "validate", bucket.address("none.csv")]) == 2
    assert "pip install 'dwcp-ml[s3]'" in capsys.readouterr().err


def test_predictions_are_compared_where_log_and_telemetry_are_in_a_store(
    bucket, files, tmp_path, capsys
):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data))
    for path in (tmp_path / "log").iterdir():
        bucket.put(f"log/{path.name}", path.read_bytes())
    telemetry = bucket.put("t.csv", files[0].read_bytes())
    words = ["monitor", "accuracy", "--log", bucket.address("log"), "--data-path", telemetry]
    assert main([*words, "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["joined"] == len(data.test)
