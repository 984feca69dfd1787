"""The examples of docs/serving.md work as they stand there; its tables are those of the code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dwcp_ml.serving.limits import Limits
from tests.serving.running import TIMEOUT_SECONDS

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def on(server, text):
    return text.replace(":8501", f":{server.http_port}").replace(":8502", f":{server.grpc_port}")


@pytest.mark.server
def test_the_shell_examples_work(server):
    whole = [block for block in blocks("bash") if "…" not in block]  # test_intervals has the other
    calls = [block for block in whole if block.startswith("curl") and ":8082" not in block]
    assert len(calls) == 3
    responses = []
    for call in calls:
        done = subprocess.run(
            ["bash", "-c", on(server, call)],
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=True,
        )
        responses.append(json.loads(done.stdout))
    assert responses[0]["predictions"][0].keys() == {"compression_level", "probabilities"}
    assert [output["name"] for output in responses[1]["outputs"]] == ["anomaly_score", "is_anomaly"]
    assert responses[2] in [{"counted": n, "duplicates": 1 - n, "undefined": 0} for n in (0, 1)]


@pytest.mark.server
def test_the_python_example_runs(server):
    (example,) = blocks("python")
    command = [sys.executable, "-W", "ignore", "-c", on(server, example)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)
    assert done.returncode == 0, done.stderr
    assert "is_high_latency" in done.stdout


@pytest.mark.server
def test_every_path_of_the_page_is_there(server):
    paths = set(re.findall(r"`(/[^`:]*)`", PAGE)) - {"/mnt/models"}
    readable = [path for path in paths if "infer" not in path]
    assert len(readable) >= 8
    for path in readable:
        status, _, _ = server.request("GET", path.replace("<name>", "consensus_latency"))
        assert status == 200, path


@pytest.mark.server
def test_every_metric_of_the_page_is_there(server):
    server.post("/v1/models/consensus_latency:predict", {"instances": [[1.0] * 20]})
    _, _, text = server.request("GET", "/metrics")
    named = set(re.findall(r"^\| `(dwcp_\w+)`", PAGE, re.MULTILINE))
    assert len(named) == 10
    for name in named - {"dwcp_prediction_log_written", "dwcp_kept_requests"}:
        assert f"\n{name}".encode() in text, name


def test_the_limits_of_the_page_are_those_of_the_code():
    limits = Limits()
    assert limits.body_bytes == 8 << 20
    assert "over 8 MiB" in PAGE
    assert f"{limits.rows} rows" in PAGE
    assert f"over {limits.inline_bytes >> 10} KiB, over {limits.inline_rows} rows" in PAGE
    table = PAGE[PAGE.index("## Limits") : PAGE.index("## On KServe")]
    for text in (
        f"| {limits.waiting_large} |",
        f"| {limits.bytes_in_flight >> 20} MiB |",
        f"| {limits.connections}, ",
        f"connection | {limits.streams} |",
        f"calls | {limits.calls} |",
        f"over 1 MiB {limits.gzip_ratio} times",
        f"| {limits.idle_seconds / 60:.0f} minutes",
    ):
        assert text in table
    assert (limits.arrival_seconds, limits.max_age_seconds) == (60.0, 600.0)


def test_the_runtime_is_yaml():
    (runtime,) = [yaml.safe_load(block) for block in blocks("yaml")]
    assert runtime["kind"] == "ServingRuntime"
