from __future__ import annotations

import json

import numpy as np
import pytest

from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import MODELS, Target
from dwcp_ml.evaluation import PlotData, nothing_to_evaluate
from tests.errors import about
from tests.evaluation.cases import latency_case, run


def test_the_record_is_json_without_nan_and_reads_back(build, examples, trained):
    data = build("bandwidth_predictor", test=examples(np.ones((6, 10, 7)), np.full(6, 0.5)))
    evaluation, _ = run(data, {"next_throughput_mbps": np.full(6, np.nan)}, trained(data))
    text = evaluation.to_json()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in JSON"))
    assert Evaluation.model_validate_json(text) == evaluation
    assert evaluation.metrics["mape_percent"] is None
    assert evaluation.missed_targets == tuple(target.metric for target in evaluation.targets)


def test_outputs_of_the_wrong_name_or_length_are_errors(bandwidth, trained):
    data, prediction = bandwidth
    with pytest.raises(DwcpError, check=about(ErrorCode.MISSING, "next_throughput_mbps")):
        run(data, {"bandwidth_class": prediction}, trained(data))
    with pytest.raises(DwcpError, check=about(ErrorCode.WRONG_SHAPE, "3")):
        run(data, {"next_throughput_mbps": prediction[:3]}, trained(data))


def test_an_empty_test_split_is_not_evaluated(build, examples, trained, bandwidth):
    empty = bandwidth[0].test.take(np.zeros(0, np.int64))
    data = build("bandwidth_predictor", test=empty)
    evaluation, plot_data = run(data, {"next_throughput_mbps": np.zeros(0)}, trained(data))
    assert not evaluation.success
    assert evaluation.reason == "The test split holds no example."
    assert plot_data.arrays == {}


def test_the_evaluation_of_an_untrained_model_repeats_its_reason(records, worse):
    training = worse(records()[0], success=False, reason="longest run 3.")
    spec = MODELS["bandwidth_predictor"]
    evaluation = nothing_to_evaluate(spec, training, spec.form().targets)
    assert evaluation.reason == "longest run 3."
    assert evaluation.missed_targets == tuple(t.metric for t in spec.form().targets)
    assert set(evaluation.metrics.values()) == {None}


def test_targets_of_the_user_are_applied_and_noted(bandwidth, trained):
    data, prediction = bandwidth
    targets = [Target("mape_percent", "<", 0.1)]
    evaluation, _ = run(data, {"next_throughput_mbps": prediction}, trained(data), targets=targets)
    assert list(evaluation.targets) == targets
    assert evaluation.missed_targets == ("mape_percent",)
    assert any("set to < 0.10 % for this run" in note for note in evaluation.notes)


def test_the_plot_data_of_every_form_can_be_stored(build, examples, trained, bandwidth, tmp_path):
    data = latency_case(build, examples)
    score = data.test.inputs.mean(axis=1)
    cases = [
        (bandwidth[0], {"next_throughput_mbps": bandwidth[1]}),
        (data, {"reconstruction_error": score, "is_high_latency": score > 100}),
    ]
    for number, (each, predictions) in enumerate(cases):
        _, plot_data = run(each, predictions, trained(each, threshold=100.0))
        path = tmp_path / f"{number}.npz"
        plot_data.save(path)
        assert set(PlotData.load(path).arrays) == set(plot_data.arrays)


def test_the_plot_data_of_a_large_split_stays_small(build, examples, trained, tmp_path):
    n = 30_000
    rng = np.random.default_rng(0)
    truth = rng.random(n) < 0.05
    data = build("reliability_detector", test=examples(rng.random((n, 6)), truth))
    score = rng.random(n)
    _, plot_data = run(data, {"anomaly_score": score, "is_anomaly": score > 0.9}, trained(data))
    assert len(plot_data["score"]) == 20_000
    assert plot_data["truth"].sum() == truth.sum()
    plot_data.save(tmp_path / "e.npz")
    assert (tmp_path / "e.npz").stat().st_size < 500_000


def test_a_target_that_the_contract_does_not_know_needs_no_note(bandwidth, trained):
    data, prediction = bandwidth
    targets = [Target("mae_mbps", "<", 100.0), Target("mape_percent", "<", 5.0)]
    evaluation, _ = run(data, {"next_throughput_mbps": prediction}, trained(data), targets=targets)
    assert evaluation.missed_targets == ()
    assert not any("for this run" in note for note in evaluation.notes)


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("kind", ["none", "all", "one"])
@pytest.mark.parametrize("name", list(MODELS))
def test_little_or_uniform_data_are_evaluated_without_a_warning(
    name, n, kind, build, examples, trained
):
    """Warnings are errors in these tests: nothing is divided by nothing unnoticed."""
    spec = MODELS[name]
    positive = np.zeros(n, bool)
    positive[: {"none": 0, "all": n, "one": 1}[kind]] = True
    truth = positive if name in ("reliability_detector", "consensus_latency") else positive * 1
    truth = positive * 5.0 if name == "bandwidth_predictor" else truth
    gains = np.zeros((n, 10)) if name == "compression_selector" else None
    rows = examples(np.ones((n, *spec.input.shape)), truth, gains=gains)
    data = build(name, test=rows, train=rows, validation=rows)
    predictions = {
        tensor.name: np.ones((n, *tensor.shape), tensor.dtype) for tensor in spec.form().outputs
    }
    training = trained(data, threshold=0.5, threshold_at_98=0.4)
    evaluation, plot_data = run(data, predictions, training)
    assert evaluation.success
    primary = [each for each in evaluation.comparisons if each.metric == evaluation.primary_metric]
    assert not primary or not all(each.passed for each in primary)
    assert Evaluation.model_validate_json(evaluation.to_json()) == evaluation
    assert plot_data.arrays
