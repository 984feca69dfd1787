"""Ceilings clear the targets, naive baselines miss one, and no oracle knows the future."""

from dataclasses import replace

import numpy as np
import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.data.examples import SETTINGS
from dwcp_ml.simulate import SimulatorSettings, generate
from dwcp_ml.simulate.ceilings import METRICS, ceilings
from dwcp_ml.simulate.detection import incident_log_odds
from dwcp_ml.simulate.oracles import choose_level, forecast_throughput
from dwcp_ml.training_run.dataset import make_dataset
from dwcp_ml.training_run.model_data import load_model_data, load_oracle
from dwcp_ml.training_run.options import RunOptions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def entries(telemetry):
    return ceilings(telemetry)[0]["models"]


def check(models):
    for spec in MODELS.values():
        form = spec.forms[0]
        entry = models[spec.name][form.name]
        ceiled = [target for target in form.targets if target.metric in METRICS[form.name]]
        assert ceiled
        for target in ceiled:
            assert target.met_by(entry["ceiling"][target.metric]), (spec.name, target)
        sign = -1 if form.primary_lower_is_better else 1
        primary = form.primary_metric
        for name, baseline in entry["baselines"].items():
            missed = [target for target in ceiled if not target.met_by(baseline[target.metric])]
            assert missed, (spec.name, name, baseline)
            assert sign * (entry["ceiling"][primary] - baseline[primary]) > 0, (spec.name, name)


def test_ceilings_clear_the_targets_and_baselines_miss_one(entries):
    check(entries)


# On seed 1 the nearest neighbour reaches 98.01 %: docs/simulator.md counts such seeds.
@pytest.mark.parametrize("seed", [2, 7, 123, 2025])
def test_and_so_for_other_seeds(seed):
    check(ceilings(generate(SimulatorSettings(seed=seed)))[0]["models"])


def test_and_so_for_published_episodes(published, entries):
    models = ceilings(published)[0]["models"]
    check(models)
    latency = models.pop("consensus_latency")["high_latency"]
    steps = dict(entries)
    assert latency["how"] != steps.pop("consensus_latency")["high_latency"]["how"]
    assert models == steps


def test_the_budget_of_the_bandwidth(entries):
    entry = entries["bandwidth_predictor"]["next_throughput_mbps"]
    assert 3.8 < entry["ceiling"]["mape_percent"] < 4.4
    assert 5.2 < entry["baselines"]["last_value"]["mape_percent"] < 5.8


def test_every_form_has_a_ceiling_with_its_error(entries):
    for spec in MODELS.values():
        for form in spec.forms:
            entry = entries[spec.name][form.name]
            assert set(entry["ceiling"]) == set(entry["standard_error"]) == set(METRICS[form.name])
            assert all(error >= 0 for error in entry["standard_error"].values())
            assert entry["how"].endswith(".")
            assert entry["test_set_size"] > 5000


def test_a_class_can_not_be_told_better_than_its_border_allows(entries):
    accuracy = entries["bandwidth_predictor"]["bandwidth_class"]["ceiling"]["accuracy"]
    assert 0.9 < accuracy < 0.98


def test_an_oracle_predicts_each_test_row_of_a_run(tmp_path):
    dataset, seed = tmp_path / "dataset", 7
    make_dataset(RunOptions(seed=seed, simulator={"days": 1.0, "nodes": 5}), dataset)
    for spec in MODELS.values():
        form = spec.form().name
        data = load_model_data(dataset, spec, SETTINGS[spec.name](), form, seed)
        mine, _ = load_oracle(dataset, form).shared(data)
        assert len(mine) == len(data.test) > 100


def test_too_short_telemetry_has_no_ceiling_but_a_reason():
    telemetry = generate(SimulatorSettings(days=0.125, nodes=3, incidents_per_node_day=0))
    models = ceilings(telemetry)[0]["models"]
    assert "incidents" in models["reliability_detector"]["anomaly"]["skipped"]


LIMITS = np.array([[100.0, 50.0]])


def forecast(telemetry, hidden, step, link):
    limits = np.repeat(LIMITS, len(step), axis=0)
    return forecast_throughput(telemetry.settings, hidden, step, link, limits)


@pytest.fixture(scope="module")
def poisoned(telemetry):
    """The hidden state with everything after step 4000 replaced, and that step."""
    at = 4000
    rng = np.random.default_rng(1)

    def after(array):
        changed = array.copy()
        changed[at + 1 :] = rng.permutation(changed[at + 1 :]) * 1.5
        return changed

    def track(events):
        return replace(events, now=after(events.now), next_known=after(events.next_known))

    hidden = telemetry.hidden
    network = replace(
        hidden.network,
        cross=after(hidden.network.cross),
        congestion=track(hidden.network.congestion),
        load=after(hidden.network.load),
        share=after(hidden.network.share),
        rate_mbps=after(hidden.network.rate_mbps),
        throughput_mbps=after(hidden.network.throughput_mbps),
    )
    health = replace(
        hidden.health,
        ln_rtt=track(hidden.health.ln_rtt),
        path_loss=track(hidden.health.path_loss),
    )
    return replace(hidden, network=network, health=health), at


def test_the_forecast_does_not_know_the_next_step(telemetry, poisoned):
    hidden, at = poisoned
    link = np.arange(hidden.topology.links)
    step = np.full(len(link), at)
    before = forecast(telemetry, telemetry.hidden, step, link)
    after = forecast(telemetry, hidden, step, link)
    np.testing.assert_array_equal(before.mean_mbps, after.mean_mbps)
    np.testing.assert_array_equal(before.mape_optimal_mbps, after.mape_optimal_mbps)
    np.testing.assert_array_equal(before.class_probability, after.class_probability)
    later = forecast(telemetry, hidden, step + 1, link)
    assert (
        later.mean_mbps != forecast(telemetry, telemetry.hidden, step + 1, link).mean_mbps
    ).all()


def test_each_forecast_is_the_best_of_its_kind(telemetry):
    network = telemetry.hidden.network
    steps, links = network.throughput_mbps.shape
    step = np.repeat(np.arange(1000, steps - 1, 3), links)
    link = np.tile(np.arange(links), len(step) // links)
    found = forecast(telemetry, telemetry.hidden, step, link)
    truth = network.throughput_mbps[step + 1, link]

    def mape(prediction):
        return np.mean(np.abs(prediction - truth) / truth)

    def squared(prediction):
        return np.mean(((prediction - truth) / found.mean_mbps) ** 2)

    for factor in (0.99, 1.01):
        assert mape(found.mape_optimal_mbps) < mape(factor * found.mape_optimal_mbps)
        assert squared(found.mean_mbps) < squared(factor * found.mean_mbps)
    assert mape(found.mape_optimal_mbps) < mape(network.throughput_mbps[step, link])


def test_class_probabilities_are_calibrated(telemetry):
    network = telemetry.hidden.network
    steps, links = network.throughput_mbps.shape
    step = np.repeat(np.arange(0, steps - 1, 5), links)
    link = np.tile(np.arange(links), len(step) // links)
    found = forecast(telemetry, telemetry.hidden, step, link).class_probability
    np.testing.assert_allclose(found.sum(axis=1), 1)
    truth = network.throughput_mbps[step + 1, link] >= LIMITS[0, 0]
    unsure = (found[:, 0] > 0.1) & (found[:, 0] < 0.9)
    assert truth[unsure].mean() == pytest.approx(found[unsure, 0].mean(), abs=0.05)


def test_the_chosen_level_is_the_oracle_without_noise(telemetry):
    frame, hidden = telemetry.frame, telemetry.hidden
    rows = np.arange(0, len(frame), 40)
    step, link = telemetry.step[rows], telemetry.link[rows]
    gains = frame[[f"throughput_gain_{level}" for level in range(10)]].to_numpy()[rows]
    counters = (
        frame["hde_compression_ratio"].to_numpy()[rows],
        frame["amst_transfer_rate"].to_numpy()[rows],
    )
    chosen = choose_level(telemetry.settings, hidden, step, link, counters)
    assert np.mean(chosen == gains.argmax(axis=1)) > 0.99


def test_incidents_are_likelier_than_bursts(telemetry):
    rows = np.arange(0, len(telemetry.frame), 7)
    step, link = telemetry.step[rows], telemetry.link[rows]
    names = ["uptime_pct", "failure_rate", "error_budget_burn_rate", "rtt_ms"]
    readings = telemetry.frame[names].to_numpy(float)[rows]
    odds = incident_log_odds(telemetry.settings, telemetry.hidden, step, link, readings)
    health = telemetry.hidden.health
    active = health.active[step, telemetry.hidden.topology.node[link]] > 0
    assert np.isfinite(odds).all()
    assert np.median(odds[active]) > 0 > np.median(odds[~active])
    assert np.mean((odds > 0) == active) > 0.99
