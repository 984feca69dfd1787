"""A log that replays the test split gets the figures of the offline report."""

import json

import numpy as np
import pandas as pd
import pytest

from dwcp_ml.contract.errors import DataRefused, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.monitoring import Unmatched, joined, live_accuracy
from dwcp_ml.monitoring.losses import losses
from dwcp_ml.prediction_log.log import PredictionLog
from tests.monitoring.replay import (
    VERSION,
    link_of,
    offline,
    prepared,
    replay,
    sources,
    stand_in,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("drop", [(), ("labels",)], ids=["labelled", "without labels"])
def test_a_replayed_test_split_gets_the_offline_figures(files, tmp_path, name, drop):
    dropped = MODELS[name].labels if drop else ()
    data = prepared(files, tmp_path, name, dropped)
    predictions = stand_in(data)
    replay(tmp_path / "log", data, predictions)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert (found.joined, found.logged, found.unmatched) == (len(data.test), len(data.test), {})
    wanted = offline(data, predictions)
    live = {figure.metric: figure.value for figure in found.figures}
    assert {target.metric for target in wanted.targets} < set(live)
    for metric, value in live.items():
        assert value == pytest.approx(wanted.metrics[metric], rel=1e-12), metric
    assert set(wanted.metrics) - set(live) <= {
        "reconstruction_mae",
        "gain_over_best_fixed",
    }
    assert found.label_source == data.label_source
    for figure in found.figures:
        assert figure.target == wanted.target_of(figure.metric)
        if figure.target is not None:
            assert figure.met == (figure.metric not in wanted.missed_targets)
            assert figure.lower <= figure.value <= figure.upper


@pytest.mark.parametrize("name", list(MODELS))
def test_the_mean_loss_is_the_error_rate(files, tmp_path, name):
    data = prepared(files, tmp_path, name)
    replay(tmp_path / "log", data, stand_in(data))
    frame = joined(sources(files, tmp_path))
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert len(frame) == found.joined
    assert frame["observed_at"].is_monotonic_increasing
    mean = frame["loss"].mean()
    if name == "bandwidth_predictor":
        assert 100 * mean == pytest.approx(found.figure("mape_percent").value)
    elif name == "compression_selector":
        assert 1 - mean == pytest.approx(found.figure("accuracy").value)
        assert frame["regret"].mean() == pytest.approx(found.figure("regret").value)
    else:
        right = 1 - mean
        test = data.test
        assert right == pytest.approx(np.mean(test.truth == stand_in(data)[_flag(name)]))


def _flag(name):
    return "is_anomaly" if name == "reliability_detector" else "is_high_latency"


def test_under_1_mbps_there_is_no_relative_loss():
    found = losses(
        MODELS["bandwidth_predictor"], np.array([2.0, 2.0, 0.0]), np.array([1.0, 0.5, 4])
    )
    np.testing.assert_array_equal(found, [1.0, np.nan, 1.0])


def test_without_observed_at_the_servers_own_clock_counts(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    predictions, test = stand_in(data), data.test
    now = {"time": 0.0}
    log = PredictionLog(tmp_path / "log", queue_length=1_000_000, clock=lambda: now["time"])
    for i in range(len(test)):
        now["time"] = float(test.timestamp[i]) + 7.25
        outputs = {name: values[i : i + 1] for name, values in predictions.items()}
        log.offer(
            data.spec.name, VERSION, "d", f"r{i}", link_of(data, test.series[i]), None,
            test.inputs[i : i + 1], outputs,
        )  # fmt: skip
    log.close(60)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    wanted = offline(data, predictions).metrics["mape_percent"]
    assert found.figure("mape_percent").value == pytest.approx(wanted)


def test_reliability_needs_incidents_and_takes_a_node_for_a_link(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    predictions = stand_in(data)
    nodes = [name.split("->")[0] for name in data.series_names]
    replay(tmp_path / "log", data, predictions, link=lambda i: nodes[data.test.series[i]])
    (found,) = live_accuracy(sources(files, tmp_path, incidents_path=None)).results
    assert found.unmatched == {Unmatched.NO_LABEL: len(data.test)}
    assert found.figures == ()
    (found,) = live_accuracy(sources(files, tmp_path)).results
    wanted = offline(data, predictions).metrics
    assert found.figure("recall").value == pytest.approx(wanted["recall"])
    files[1].write_text("[]")
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.joined == len(data.test)
    assert found.figure("recall").value is None


def test_incidents_without_an_interval_are_noted(files, tmp_path):
    data = prepared(files, tmp_path, "reliability_detector")
    replay(tmp_path / "log", data, stand_in(data))
    incidents = json.loads(files[1].read_text())
    for each in incidents:
        del each["start"], each["end"]
    files[1].write_text(json.dumps(incidents))
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.label_source == "window"
    assert "15 min either side" in found.notes[0]


def test_since_until_and_models_choose(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data))
    middle = float(data.test.timestamp[len(data.test) // 2])
    late = live_accuracy(sources(files, tmp_path, since=middle)).results[0]
    early = live_accuracy(sources(files, tmp_path, until=middle)).results[0]
    assert late.logged == np.sum(data.test.timestamp >= middle)
    assert early.logged + late.logged == len(data.test)
    other = live_accuracy(sources(files, tmp_path, models=[MODELS["consensus_latency"]]))
    assert (other.results, other.data) == ((), None)


def test_what_can_not_be_joined_is_refused_in_a_sentence(files, tmp_path):
    with pytest.raises(DataRefused, match="can't read the prediction log"):
        live_accuracy(sources(files, tmp_path))
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data))
    with pytest.raises(UsageError, match="tolerance"):
        live_accuracy(sources(files, tmp_path, tolerance_seconds=-1.0))
    with pytest.raises(UsageError, match="window of an incident"):
        live_accuracy(sources(files, tmp_path, incident_window_minutes=0.0))
    pd.read_csv(files[0]).drop(columns=["rtt_ms"]).to_csv(files[0], index=False)
    with pytest.raises(DataRefused, match="rtt_ms"):
        live_accuracy(sources(files, tmp_path))


def test_two_bundles_under_one_version_are_noted(files, tmp_path):
    data = prepared(files, tmp_path, "bandwidth_predictor")
    replay(tmp_path / "log", data, stand_in(data), digest=lambda i: "ab"[i % 2] * 64)
    (found,) = live_accuracy(sources(files, tmp_path)).results
    assert found.digests == ("a" * 64, "b" * 64)
    assert "2 bundles answered" in found.notes[0]
