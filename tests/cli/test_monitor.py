"""``dwcp-ml monitor accuracy``: a table of the targets, and a sentence where there is none."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.cli.monitor import SHOWN, group
from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH, MODELS
from dwcp_ml.data.features import feature_matrix
from dwcp_ml.data.reading import load
from dwcp_ml.evaluation.labels import WORDINGS
from dwcp_ml.prediction_log.log import PredictionLog
from tests.errors import about

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ground-truth.md"


def run(capsys, *words):
    group.main(args=["accuracy", *map(str, words)], standalone_mode=False)
    return capsys.readouterr().out


@pytest.fixture
def answered(files, tmp_path):
    """Return a log of the baseline last value over the whole telemetry, and where a link is."""

    def make(version="1", *, error=1.0, link=lambda name: name, late=0.0):
        rows = load(files[0], BANDWIDTH.needed_columns)
        log = PredictionLog(tmp_path / "log", queue_length=100_000)
        for (node, peer), series in rows.groupby(["node_id", "peer_id"]):
            features = feature_matrix(series, BANDWIDTH.features)
            times = series["timestamp"].to_numpy()
            for end in range(10, len(series)):
                log.offer(
                    "bandwidth_predictor", version, "d", f"{node}-{peer}-{end}",
                    link(f"{node}/{peer}"), times[end - 1] + late,
                    features[np.newaxis, end - 10 : end],
                    {"next_throughput_mbps": error * features[end - 1 : end, 2]},
                )  # fmt: skip
        log.close(30)
        return log.written

    return make


@pytest.mark.slow
def test_the_table_says_what_was_joined_and_what_was_met(capsys, files, tmp_path, answered):
    logged = answered()
    answered("2", error=1.5)
    out = run(capsys, "--log", tmp_path / "log", "--data-path", files[0])
    lines = [re.split(r"\s*│\s*", line.strip(" │")) for line in out.splitlines() if "│" in line]
    first, second = (line for line in lines if line[0] == "bandwidth_predictor")
    assert first[1:5] == ["1", f"{logged:,} of {logged:,}", "MAPE", "< 5 %"]
    assert re.fullmatch(r"\d\.\d\d % to \d\.\d\d %", first[6])
    assert first[7] == "met"
    assert second[1] == "2"
    assert float(second[5].split()[0]) == pytest.approx(50, abs=5)
    assert second[7] == "missed"
    assert "not joined" not in out


@pytest.mark.slow
def test_json_and_output_hold_everything(capsys, files, tmp_path, answered):
    logged = answered()
    out = run(
        capsys, "--log", tmp_path / "log", "--data-path", files[0], "--json",
        "--output", tmp_path / "accuracy.json",
    )  # fmt: skip
    found = json.loads(out)
    assert json.loads((tmp_path / "accuracy.json").read_text()) == found
    (result,) = found["results"]
    assert (result["logged"], result["joined"], result["unmatched"]) == (logged, logged, {})
    assert found["data"]["rows"] == len(pd.read_csv(files[0]))
    assert {f["metric"] for f in result["figures"]} >= {"mape_percent", "rmse_mbps"}


@pytest.mark.slow
def test_times_and_models_choose(capsys, files, tmp_path, answered):
    answered()
    words = ["--log", tmp_path / "log", "--data-path", files[0], "--json"]
    everything = json.loads(run(capsys, *words))["results"][0]["logged"]
    for middle in ("2025-01-06T03:00:00Z", "2025-01-06T03:00:00", "1736132400"):
        late = json.loads(run(capsys, *words, "--since", middle))["results"][0]["logged"]
        early = json.loads(run(capsys, *words, "--until", middle))["results"][0]["logged"]
        assert 0 < late < everything
        assert early + late == everything
    out = run(capsys, *words[:-1], "--model", "latency")
    assert "holds no matching prediction" in out
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, "--since")):
        run(capsys, *words, "--since", "yesterday")
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "latencies")):
        run(capsys, *words, "--model", "latencies")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"link": lambda name: None}, "no link named; send the header X-DWCP-Link"),
        ({"link": lambda name: name.replace("/", ":")}, "X-DWCP-Link must name node_id and peer"),
        (
            {"late": 1e6},
            "give telemetry that goes on after the predictions (its last row is of 2025-",
        ),
        ({"late": -1e6}, "check the clock behind X-DWCP-Observed-At"),
        ({"error": float("nan")}, "its predictions break its contract"),
    ],
    ids=["no link", "unknown link", "too late", "too early", "not a number"],
)
def test_nothing_joined_says_why(capsys, files, tmp_path, answered, wrong, sentence):
    logged = answered(**wrong)
    out = run(capsys, "--log", tmp_path / "log", "--data-path", files[0])
    assert f"0 of {logged:,}" in out
    assert "Nothing was joined: " in out
    assert sentence in out


def test_a_few_answers_have_no_interval(capsys, files, tmp_path):
    rows = load(files[0], BANDWIDTH.needed_columns)
    node, peer, time = rows.loc[0, ["node_id", "peer_id", "timestamp"]]
    log = PredictionLog(tmp_path / "log")
    everything = {
        "bandwidth_predictor": {"next_throughput_mbps": np.ones(1)},
        "compression_selector": {"compression_level": np.ones(1, np.int64)},
        "reliability_detector": {"is_anomaly": np.ones(1, bool), "anomaly_score": np.ones(1)},
        "consensus_latency": {
            "is_high_latency": np.ones(1, bool),
            "reconstruction_error": np.ones(1),
        },
    }
    for name, outputs in everything.items():
        inputs = np.ones((1, *MODELS[name].input.shape), np.float32)
        log.offer(name, "1", "d", "r", f"{node}/{peer}", time + 60.0 * 30, inputs, outputs)
    log.close(30)
    words = ["--log", tmp_path / "log", "--data-path", files[0], "--incidents-path", files[1]]
    out = run(capsys, *words)
    for name in MODELS:
        assert name in out
    assert out.count("1 of 1") == 4
    assert "n/a" in out


def test_every_row_alone_on_its_link_has_no_cadence(capsys, files, tmp_path):
    frame = pd.read_csv(files[0])
    frame[frame["timestamp"] == frame["timestamp"].min()].to_csv(files[0], index=False)
    first = load(files[0], []).iloc[0]
    log = PredictionLog(tmp_path / "log")
    log.offer(
        "reliability_detector", "1", "d", "r", first["node_id"], float(first["timestamp"]),
        np.ones((1, 6)), {"is_anomaly": np.zeros(1, bool), "anomaly_score": np.zeros(1)},
    )  # fmt: skip
    log.close(30)
    words = ["--log", tmp_path / "log", "--data-path", files[0], "--incidents-path", files[1]]
    assert "1 of 1" in run(capsys, *words)


def test_a_wrong_log_is_refused(capsys, files, tmp_path):
    with pytest.raises(DataRefused, check=about(ErrorCode.FORBIDDEN, "incidents.json")):
        run(capsys, "--log", tmp_path, "--data-path", files[0])


def test_what_the_table_shows_has_words():
    assert set(SHOWN) == set(MODELS)
    for name, metrics in SHOWN.items():
        assert set(metrics) <= set(WORDINGS)
        assert {target.metric for target in MODELS[name].form().targets} <= set(metrics)


def test_the_example_of_the_page_works(capsys, tmp_path, monkeypatch):
    page = PAGE.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    simulated, compared = re.findall(
        r"^dwcp-ml (data simulate .*|monitor .*)$", page, re.MULTILINE
    )[:2]
    from dwcp_ml.cli.data import group as data_group

    data_group.main(args=shlex.split(simulated)[1:], standalone_mode=False)
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(program, str(PAGE), "exec"), {})
    said = capsys.readouterr().out
    assert "2,808 predictions logged, 0 dropped" in said
    out = run(capsys, *shlex.split(compared)[2:])
    # The page shows the numbers of the table and the sentence below it.
    for line in out.splitlines():
        for cell in re.split(r"\s*[│┃]\s*", line):
            if re.search(r"\d", cell):
                assert cell.strip() in page
