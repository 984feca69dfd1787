"""Joined ground truth reaches a real server once, however often the job runs."""

import json

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.models import MODELS
from dwcp_ml.monitoring import joined
from dwcp_ml.monitoring.outcome_reports import ReportState, report_outcomes
from tests.errors import about
from tests.monitoring.replay import VERSION, fake_predictions, prepared, replay, sources
from tests.serving.bundles import make_bundle
from tests.serving.running import Server

pytestmark = [pytest.mark.slow, pytest.mark.server]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("server")
    for name in MODELS:
        make_bundle(place / "models", name)
    running = Server(place / "models", place)
    yield running
    running.kill()


def address(server):
    return f"http://127.0.0.1:{server.http_port}"


def losses(server, model, version):
    """Return count and sum of the losses that the server has counted."""
    _, _, page = server.request("GET", "/metrics")
    labels = f'{{model="{model}",version="{version}"}} '
    found = [0.0, 0.0]
    for line in page.decode().splitlines():
        for place, name in enumerate(("count", "sum")):
            start = f"dwcp_reported_loss_{name}{labels}"
            if line.startswith(start):
                found[place] = float(line.removeprefix(start))
    return tuple(found)


@pytest.mark.parametrize("name", MODELS)
def test_the_losses_of_the_join_are_those_that_the_server_counts(server, files, tmp_path, name):
    data = prepared(files, tmp_path, name)
    replay(tmp_path / "log", data, fake_predictions(data))
    expected = joined(sources(files, tmp_path))["loss"].dropna()
    state = tmp_path / "state.json"
    result = report_outcomes(sources(files, tmp_path), address(server), state)
    (version,) = result.versions
    assert (version.model, version.version) == (name, VERSION)
    assert version.counted == len(expected)
    count, total = losses(server, name, VERSION)
    assert count == len(expected)
    assert total == pytest.approx(expected.sum(), rel=1e-5)
    again = report_outcomes(sources(files, tmp_path), address(server), state)
    assert sum(one.reported for one in again.versions) == 0


def test_predictions_whose_truth_is_still_to_come_are_reported_later_and_each_once(
    server, files, tmp_path
):
    """The job runs while telemetry arrives; a version of its own makes its counts known."""
    version = "20260601-000000"
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data), version=version, prefix="late")
    whole = pd.read_csv(files[0])
    times = pd.to_datetime(whole["timestamp"], format="ISO8601")
    state, reported = tmp_path / "state.json", 0
    for share in (0.9, 0.95, 1.0, 1.0):
        cut = times <= times.quantile(share)
        whole[cut].to_csv(files[0], index=False)
        result = report_outcomes(sources(files, tmp_path), address(server), state)
        reported += sum(one.reported for one in result.versions)
        if result.versions:  # the last time nothing is left
            assert ReportState.read(state).reported_until == result.reported_until
    assert not result.versions
    every = joined(sources(files, tmp_path))
    assert reported == len(every)
    assert losses(server, "bandwidth_predictor", version)[0] == every["loss"].notna().sum()


def test_a_server_that_is_not_there_leaves_the_state_as_it_was(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data))
    state = tmp_path / "state.json"
    state.write_text(ReportState(reported_until=1.0).to_json())
    with pytest.raises(DwcpError):
        report_outcomes(sources(files, tmp_path), "http://127.0.0.1:9", state)
    assert ReportState.read(state).reported_until == 1.0


def test_a_server_that_counts_nothing_is_said(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, fake_predictions(data))
    make_bundle(tmp_path / "models", "bandwidth_predictor")
    running = Server(tmp_path / "models", tmp_path / "server", "--no-feedback")
    try:
        with pytest.raises(DwcpError, check=about(ErrorCode.STATUS, 404)):
            report_outcomes(sources(files, tmp_path), address(running))
    finally:
        running.kill()


def test_the_command(server, files, tmp_path, capsys):
    data = prepared(files, tmp_path, "consensus_latency")
    version = "20260701-000000"
    replay(tmp_path / "log", data, fake_predictions(data), version=version, prefix="command")
    words = [
        "monitor", "join", "--log", str(tmp_path / "log"), "--data-path", str(files[0]),
        "--incidents-path", str(files[1]), "--url", address(server),
        "--state", str(tmp_path / "state.json"), "--json",
    ]  # fmt: skip
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["version"] for one in found["versions"]] == [version]
    assert found["versions"][0]["counted"] == found["versions"][0]["reported"] > 0
    assert np.isfinite(found["reported_until"])
    assert main(words[:-1]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main([*words[:3], str(tmp_path / "none"), *words[4:]]) == 4
