"""The rules about references, from predictions to the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.cli.shared import print_summary
from dwcp_ml.contract.comparison import Outcome
from dwcp_ml.contract.models import Target
from dwcp_ml.evaluation import (
    baselines,
    gate_model,
    gate_session,
    model_html,
    model_markdown,
    session_html,
    session_markdown,
)
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from tests.evaluation.cases import comparison, comparison_with, run


def reasons(evaluation, records, worse):
    """The reasons to reject that are about references."""
    training, _, export, data = records(evaluation.model_name)
    found = rejection_reasons(worse(training, form=evaluation.form), evaluation, export, data)
    return [text for severity, text in found if severity is Severity.BASELINE]


@pytest.fixture
def lossy(build, examples):
    """Two links whose next throughput depends on the level and on the last packet loss."""
    rng = np.random.default_rng(0)
    n = 2000
    series = np.arange(n) % 2
    level = np.array([20.0, 2000.0])[series]
    inputs = np.ones((n, 10, 7))
    inputs[:, :, 2] = level[:, None] * np.exp(rng.normal(0, 0.2, (n, 10)))
    loss = 10.0 ** rng.uniform(-5, -3, (n, 10))
    inputs[:, :, 3] = loss
    truth = level * (loss[:, -1] / 1e-4) ** -0.1 * np.exp(rng.normal(0, 0.01, n))
    rows = examples(inputs, truth, series=series)
    parts = [rows.take(np.arange(*each)) for each in ((0, 1000), (1000, 1400), (1400, n))]
    return build("bandwidth_predictor", train=parts[0], validation=parts[1], test=parts[2])


LOOSE = [Target("mape_percent", "<", 50.0)]


def of_lossy(lossy, trained, prediction):
    return run(lossy, {"next_throughput_mbps": prediction}, trained(lossy), targets=LOOSE)[0]


def test_the_ridge_regression_sees_features_that_are_far_below_one(lossy):
    strong = baselines.bandwidth(lossy)[1]
    errors = {
        name: np.mean(np.abs(each - lossy.test.truth) / lossy.test.truth)
        for name, each in strong.items()
    }
    # With log(1 + x) the loss would be a constant, as it is for the autoregression.
    assert errors["ridge_on_all_inputs"] < 0.5 * errors["linear_autoregression"]


def test_the_penalty_of_the_ridge_regression_is_chosen_on_validation(build, examples):
    """Noise only, and few rows: without a penalty the fit would be of the noise."""
    rng = np.random.default_rng(1)

    def part(n):
        inputs = np.exp(rng.normal(0, 1, (n, 10, 7)))
        return examples(inputs, 100 * np.exp(rng.normal(0, 0.3, n)))

    data = build("bandwidth_predictor", train=part(90), validation=part(500), test=part(500))
    predicted = np.log(baselines.bandwidth(data)[1]["ridge_on_all_inputs"])
    logs = np.log1p(data.train.inputs.reshape(90, -1).astype(float))
    logs = (logs - logs.mean(axis=0)) / logs.std(axis=0)
    fitted = logs @ np.linalg.lstsq(logs, np.log(data.train.truth), rcond=None)[0]
    assert predicted.std() < 0.5 * fitted.std()


def test_a_model_as_good_as_the_ridge_regression_is_approved_with_a_finding(
    lossy, trained, records, worse, tmp_path, capsys
):
    prediction = baselines.bandwidth(lossy)[1]["ridge_on_all_inputs"]
    evaluation = of_lossy(lossy, trained, prediction)
    training, _, export, data = records("bandwidth_predictor")
    report = gate_model(training, evaluation, export, data)
    assert report.verdict == "APPROVED"
    assert [(each.rule, each.metric) for each in report.findings] == [
        ("ridge_on_all_inputs", "mape_percent")
    ]
    assert (report.findings[0].lower, report.findings[0].upper) == (0.0, 0.0)
    words = "APPROVED, no better than ridge_on_all_inputs on MAPE"
    assert words in model_markdown(report).splitlines()[0]
    assert model_html(report).count(words) == 2
    session = gate_session("s", [report], report.data)
    sentence = "The model is no better than ridge_on_all_inputs on MAPE: the improvement is 0.00 %"
    for text in (session_markdown(session), session_html(session)):
        assert "1 of 1 model approved (1 with findings)" in text
        assert sentence in text
    print_summary(session, tmp_path)
    printed = capsys.readouterr().out
    assert printed.startswith("APPROVED: 1 of 1 model approved (1 with findings)")
    assert "bandwidth_predictor: no better than ridge_on_all_inputs on MAPE\n" in printed


def test_a_model_worse_than_the_ridge_regression_is_rejected_by_it_alone(
    lossy, trained, records, worse
):
    rng = np.random.default_rng(2)
    ridge = baselines.bandwidth(lossy)[1]["ridge_on_all_inputs"]
    evaluation = of_lossy(lossy, trained, ridge * np.exp(rng.normal(0, 0.02, len(ridge))))
    assert comparison_with(evaluation, "linear_autoregression").outcome is Outcome.BETTER
    found = reasons(evaluation, records, worse)
    assert len(found) == 1
    assert "worse than that of the strong reference ridge_on_all_inputs" in found[0]
    assert evaluation.findings == ()


def test_a_lower_mape_does_not_excuse_a_lower_correlation(build, examples, trained, records, worse):
    """Small links are predicted well at the cost of the large one."""
    rng = np.random.default_rng(3)
    n = 4000
    series = np.arange(n) % 4
    level = np.array([5.0, 6.0, 7.0, 5000.0])[series]
    truth = level * np.exp(rng.normal(0, 0.15, n))
    inputs = np.ones((n, 10, 7)) * level[:, None, None]
    inputs[:, :, 2] = truth[:, None] * np.exp(rng.normal(0, 0.1, (n, 10)))
    data = build("bandwidth_predictor", test=examples(inputs, truth, series=series), series=4)
    spread = np.where(series == 3, 0.2, 0.001)
    evaluation, _ = run(
        data, {"next_throughput_mbps": truth * np.exp(rng.normal(0, spread))}, trained(data)
    )
    last = {
        metric: comparison_with(evaluation, "last_value", metric).outcome
        for metric in ("mape_percent", "correlation", "mae_mbps")
    }
    assert last == {
        "mape_percent": Outcome.BETTER,
        "correlation": Outcome.WORSE,
        "mae_mbps": Outcome.WORSE,
    }
    found = reasons(evaluation, records, worse)
    assert any("Correlation" in text and "last_value" in text for text in found)


def test_a_higher_accuracy_does_not_excuse_a_higher_regret(
    build, examples, trained, records, worse
):
    """The few wrong levels of the model cost everything, the many of the neighbours nothing."""
    rng = np.random.default_rng(4)
    n = 3000
    best = rng.integers(0, 9, n)
    levels = np.arange(10)
    gains = 1.0 - 0.001 * np.abs(levels - best[:, None])
    gains[:, 9] = 0.0
    inputs = np.ones((n, 6))
    inputs[:, 0] = np.exp(best + rng.normal(0, 0.4, n))
    rows = examples(inputs, best, gains=gains)
    train, test = rows.take(np.arange(0, n, 2)), rows.take(np.arange(1, n, 2))
    data = build("compression_selector", train=train, test=test)
    chosen = np.where(rng.random(len(test)) < 0.01, 9, test.truth)
    evaluation, _ = run(data, {"compression_level": chosen}, trained(data))
    assert evaluation.missed_targets == ()
    assert comparison_with(evaluation, "nearest_neighbour").outcome is Outcome.BETTER
    assert comparison_with(evaluation, "nearest_neighbour", "regret").outcome is Outcome.WORSE
    found = reasons(evaluation, records, worse)
    assert found
    assert all("Regret against the oracle" in text for text in found)


def test_one_feature_as_good_as_the_forest_is_a_finding(build, examples, trained, records, worse):
    rng = np.random.default_rng(5)
    truth = rng.random(3000) < 0.1
    inputs = rng.gamma(2.0, 1.0, (3000, 6))
    inputs[:, 0] = 99.0
    inputs[truth, 1] += 6
    data = build("reliability_detector", test=examples(inputs, truth))
    score = data.test.inputs[:, 1]
    evaluation, _ = run(
        data, {"anomaly_score": score, "is_anomaly": score > 6}, trained(data, threshold=6.0)
    )
    assert "failure_rate_alone" in [each.rule for each in evaluation.findings]
    assert reasons(evaluation, records, worse) == []


@pytest.mark.parametrize(
    ("upper", "margin", "outcome"),
    [
        (-0.0001, 0.0, Outcome.WORSE),
        (-0.0009, 0.001, Outcome.AS_GOOD),
        (-0.0011, 0.001, Outcome.WORSE),
    ],
)
def test_a_difference_within_the_margin_is_not_worse(upper, margin, outcome):
    found = comparison(
        kind="strong", requirement="not_worse", improvement=-0.002, lower=-0.004, upper=upper,
        margin=margin,
    )  # fmt: skip
    assert found.outcome is outcome
    assert found.passed is (outcome is Outcome.AS_GOOD)
