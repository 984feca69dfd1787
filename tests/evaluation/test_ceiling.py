from __future__ import annotations

import numpy as np
import pytest

from dwcp_ml.evaluation.ceiling import Ceiling
from tests.evaluation.cases import ceiling_of, run


def test_far_above_the_ceiling_is_a_leak_and_within_the_error_is_not(bandwidth, trained):
    data, prediction = bandwidth
    predictions = {"next_throughput_mbps": prediction}
    own = run(data, predictions, trained(data))[0].metrics["mape_percent"]
    near = ceiling_of("next_throughput_mbps", mape_percent=own + 0.02)
    assert run(data, predictions, trained(data), near)[0].above_ceiling == ()
    far = ceiling_of("next_throughput_mbps", mape_percent=own + 2.0)
    evaluation = run(data, predictions, trained(data), far)[0]
    assert evaluation.above_ceiling == ("mape_percent",)
    assert evaluation.ceiling == {"mape_percent": own + 2.0}
    assert evaluation.ceiling_standard_error == {"mape_percent": 0.01}


def test_the_ceiling_of_another_form_does_not_count(bandwidth, trained):
    data, prediction = bandwidth
    other = ceiling_of("bandwidth_class", accuracy=0.9)
    evaluation, _ = run(data, {"next_throughput_mbps": prediction}, trained(data), other)
    assert evaluation.ceiling is None
    assert any("ceiling is unknown" in note for note in evaluation.notes)


@pytest.mark.parametrize(
    "entry", [None, {}, {"f": {"skipped": "too short"}}, {"f": {"ceiling": {}}}]
)
def test_no_ceiling_is_none(entry):
    assert Ceiling.read(entry, "f") is None


def test_undefined_values_of_a_ceiling_are_ignored():
    found = Ceiling.read(
        {"f": {"ceiling": {"a": 1.0, "b": None, "c": float("nan")}, "standard_error": {"a": None}}},
        "f",
    )
    assert found.values == {"a": 1.0}
    assert found.errors == {}


def test_three_standard_errors_of_both_decide():
    ceiling = Ceiling({"mape_percent": 4.0, "correlation": 0.9}, {"mape_percent": 0.3})
    # sqrt(0.3^2 + 0.4^2) = 0.5; an error is better when it is lower.
    assert not ceiling.exceeded_by("mape_percent", 2.51, 0.4, 100)
    assert ceiling.exceeded_by("mape_percent", 2.49, 0.4, 100)
    assert not ceiling.exceeded_by("mape_percent", 9.0, 0.4, 100)
    assert not ceiling.exceeded_by("correlation", 0.929, 0.01, 100)
    assert ceiling.exceeded_by("correlation", 0.931, 0.01, 100)
    assert not ceiling.exceeded_by("correlation", 0.5, 0.01, 100)
    assert not ceiling.exceeded_by("correlation", 1.0, float("nan"), 100)


def test_a_perfect_accuracy_is_a_leak_on_a_large_split_only():
    ceiling = Ceiling({"accuracy": 0.99})
    # sqrt(.99 * .01 / n) is 0.0099 for 100 rows and 0.00031 for 100,000.
    assert not ceiling.exceeded_by("accuracy", 1.0, 0.0, 100)
    assert ceiling.exceeded_by("accuracy", 1.0, 0.0, 100_000)


def test_the_error_of_a_share_is_at_least_that_of_independent_rows():
    ceiling = Ceiling({"accuracy": 0.9})
    # Three times sqrt(.9 * .1 / 900) is 0.03.
    assert not ceiling.exceeded_by("accuracy", 0.9299, 0.0, 900)
    assert ceiling.exceeded_by("accuracy", 0.9301, 0.0, 900)
    # A correlation is no share of rows: its own error counts alone.
    assert Ceiling({"correlation": 0.9}).exceeded_by("correlation", 0.9001, 0.0, 900)


def test_the_ceiling_itself_exceeds_no_ceiling():
    for metric in ("accuracy", "correlation", "mape_percent"):
        assert not Ceiling({metric: 0.99}).exceeded_by(metric, 0.99, 0.0, 100)


def test_few_positives_make_no_leak_of_a_perfect_curve(build, examples, trained):
    """Twenty positives can't tell 1 from 0.99; a thousand would."""
    for positives, above in ((20, ()), (4000, ("pr_auc",))):
        n = 5 * positives
        truth = np.arange(n) % 5 == 0
        inputs = np.random.default_rng(0).random((n, 6))
        data = build("reliability_detector", test=examples(inputs, truth))
        evaluation, _ = run(
            data,
            {"anomaly_score": truth * 1.0, "is_anomaly": truth},
            trained(data),
            {"anomaly": {"ceiling": {"pr_auc": 0.99}, "standard_error": {}}},
        )
        assert evaluation.above_ceiling == above
