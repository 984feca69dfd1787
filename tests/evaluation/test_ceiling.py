from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dwcp_ml.contract.comparison import Outcome
from dwcp_ml.evaluation import comparison
from dwcp_ml.evaluation.bandwidth import metrics_of
from dwcp_ml.evaluation.ceiling import Oracle, ceiling_values
from tests.evaluation.cases import run, with_oracle
from tests.evaluation.conftest import bandwidth_case

FORM = "next_throughput_mbps"


def noisy(truth, noise, seed):
    return truth * np.exp(noise * np.random.default_rng(seed).standard_normal(len(truth)))


def oracle_of(data, prediction):
    metrics = ("mape_percent", "correlation_within_link_median")
    return Oracle.of(data, {metric: {FORM: prediction} for metric in metrics})


def compared(data, prediction, trained, oracle):
    return with_oracle(run(data, {FORM: prediction}, trained(data), oracle=oracle)[0])


@pytest.fixture(scope="module")
def case():
    """Data of the bandwidth predictor, and the forecast of an oracle with an error of 4 %."""
    data, _ = bandwidth_case(4000)
    return data, noisy(data.test.truth, 0.04, 1)


def test_a_forecast_that_reads_a_copy_of_the_outcome_with_noise_is_found(case, trained):
    """A forecast with an error of 4.3 %, and a forged column with 8 %, weighted by precision.

    Together they have an error of 3.8 %, and the oracle one of 4 %. The difference is within three
    standard errors of two values that are taken for independent; but the rows are the same.
    """
    data, best = case
    truth = data.test.truth
    forecast, forged = noisy(best, 0.015, 2), noisy(truth, 0.08, 3)
    prediction = forecast**0.78 * forged**0.22
    found = compared(data, prediction, trained, oracle_of(data, best))["mape_percent"]
    assert found.outcome is Outcome.BETTER
    assert not found.passed
    blocks = comparison.blocks_for(data)
    apart = [
        comparison.standard_error(metrics_of(data, each, blocks).statistics["mape_percent"], blocks)
        for each in (prediction, best)
    ]
    assert 0 < found.improvement < 3 * np.hypot(*apart)


def test_honest_forecasts_and_the_oracle_itself_are_not(case, trained):
    data, best = case
    oracle = oracle_of(data, best)
    for prediction in (best, noisy(best, 0.02, 2), noisy(best, 0.0005, 4)):
        found = compared(data, prediction, trained, oracle)
        assert len(found) == 2
        assert all(each.passed for each in found.values())


def test_a_share_that_is_better_by_less_than_the_margin_shows_no_leak(build, examples, trained):
    truth = np.arange(20_000) % 10
    data = build("compression_selector", test=examples(np.ones((20_000, 9)), truth))
    for wrong, passed in ((15, True), (60, False)):
        chosen = np.where(np.arange(20_000) % (20_000 // wrong) == 0, (truth + 1) % 10, truth)
        oracle = Oracle.of(data, {"accuracy": {data.form: chosen}})
        found = with_oracle(run(data, {data.form: truth}, trained(data), oracle=oracle)[0])
        assert found["accuracy"].lower > 0
        assert found["accuracy"].passed is passed


def test_only_rows_that_both_have_predicted_are_compared(case, trained):
    data, best = case
    half = np.arange(len(data.test)) % 2 == 0
    other = replace(data, test=data.test.take(half))
    prediction = np.where(half, noisy(best, 0.02, 2), data.test.truth)
    found = compared(data, prediction, trained, oracle_of(other, best[half]))
    assert found["mape_percent"].passed
    everywhere = compared(data, prediction, trained, oracle_of(data, best))
    assert not everywhere["mape_percent"].passed


@pytest.mark.parametrize("change", ["time", "link", "label"])
def test_without_a_shared_row_nothing_is_compared_and_a_note_says_so(case, trained, change):
    data, best = case
    oracle = oracle_of(data, best)
    oracle = {
        "time": replace(oracle, timestamp=oracle.timestamp + 1e7),
        "link": replace(oracle, series=np.char.add(oracle.series, "x")),
        "label": replace(oracle, truth=oracle.truth * 1.01),
    }[change]
    ceiling = {FORM: {"ceiling": {"mape_percent": 4.0}}}
    predictions = {FORM: data.test.truth}
    evaluation, _ = run(data, predictions, trained(data), ceiling, oracle=oracle)
    assert with_oracle(evaluation) == {}
    assert any("was not compared with the oracle" in note for note in evaluation.notes)
    assert evaluation.ceiling == {"mape_percent": 4.0}


def test_predictions_are_the_same_after_a_file(case, tmp_path):
    data, best = case
    oracle = oracle_of(data, best)
    oracle.frame(FORM).to_parquet(tmp_path / "oracles.parquet", index=False)
    back = Oracle.read(tmp_path / "oracles.parquet", FORM)
    assert back.predictions.keys() == oracle.predictions.keys()
    for metric, outputs in oracle.predictions.items():
        np.testing.assert_array_equal(back.predictions[metric][FORM], outputs[FORM])
    mine, theirs = back.shared(data)
    np.testing.assert_array_equal(mine, np.arange(len(data.test)))
    np.testing.assert_array_equal(theirs, mine)
    assert Oracle.read(tmp_path / "oracles.parquet", "bandwidth_class") is None


def test_data_that_were_not_simulated_have_no_ceiling(case, trained):
    data, best = case
    other = {"bandwidth_class": {"ceiling": {"accuracy": 0.9}}}
    evaluation, _ = run(data, {FORM: best}, trained(data), other)
    assert evaluation.ceiling is None
    assert any("ceiling is unknown" in note for note in evaluation.notes)


@pytest.mark.parametrize(
    "entry", [None, {}, {"f": {"skipped": "too short"}}, {"f": {"ceiling": {}}}]
)
def test_no_ceiling_is_none(entry):
    assert ceiling_values(entry, "f") is None


def test_undefined_values_of_a_ceiling_are_ignored():
    entry = {"f": {"ceiling": {"a": 1.0, "b": None, "c": float("nan")}}}
    assert ceiling_values(entry, "f") == {"a": 1.0}
