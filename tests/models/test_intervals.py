"""Prediction intervals of the bandwidth predictor: what they are calibrated on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dwcp_ml.contract.intervals import conformity_scores
from dwcp_ml.models import create
from dwcp_ml.models.protocol import FitContext
from tests.models.conftest import make_data, make_examples

NAME, FORM = "bandwidth_predictor", "next_throughput_mbps"


def validation(n: int):
    """Examples of windows of ten minutes, one a minute, in each of two series."""
    examples = make_examples(NAME, FORM, n, 2)
    ends = np.repeat(np.arange(n // 2), 2) * 60.0
    return dataclasses.replace(
        examples, timestamp=ends, span=np.stack([ends - 540.0, ends + 60.0], axis=1)
    )


def test_no_window_is_in_both_parts_and_the_calibration_is_later():
    model = create(NAME, form=FORM)
    whole = validation(400)
    choosing, calibration = model.validation_parts(whole)
    assert calibration is not None
    assert choosing.span[:, 1].max() < calibration.span[:, 0].min()
    assert len(calibration) >= 0.4 * len(whole)
    # Those that straddle the cut: eleven steps of two series, in neither part.
    assert len(whole) - len(choosing) - len(calibration) == pytest.approx(20, abs=2)


@pytest.mark.parametrize(
    ("form", "rows", "changes"),
    [
        ("bandwidth_class", 400, {}),
        (FORM, 150, {}),
        (FORM, 400, {"calibration_share": 0.0}),
    ],
    ids=["classes", "too few", "turned off"],
)
def test_without_intervals_all_of_validation_chooses(form, rows, changes):
    model = create(NAME, {"intervals": changes} if changes else None, form=form)
    whole = validation(rows)
    choosing, calibration = model.validation_parts(whole)
    assert choosing is whole
    assert calibration is None


def test_the_width_is_the_quantile_of_the_errors_on_the_log_scale(monkeypatch):
    model = create(NAME, {"intervals": {"nominal_coverage": 0.8}}, form=FORM)
    examples = validation(400)
    prediction = examples.truth * np.random.default_rng(0).uniform(0.8, 1.2, 400)
    monkeypatch.setattr(model, "predict", lambda _inputs: {FORM: prediction})
    fitted = model.fit_intervals(examples)
    scores = conformity_scores(examples.truth, prediction)
    assert np.mean(scores <= fitted["interval_half_width"]) == pytest.approx(0.8, abs=1.5 / 400)
    assert fitted["interval_nominal"] == 0.8
    assert fitted["interval_examples"] == 400
    # Nothing below the largest score would do: then there are no intervals.
    few = examples.take(np.arange(3))
    monkeypatch.setattr(model, "predict", lambda _inputs: {FORM: prediction[:3]})
    assert model.fit_intervals(few) == {}


@pytest.mark.train
def test_what_calibrates_the_intervals_chooses_nothing_else():
    data = dataclasses.replace(make_data(NAME, FORM), validation=validation(400))
    spoiled = dataclasses.replace(data.validation, truth=data.validation.truth.copy())
    model = create(NAME, form=FORM)
    start = model.validation_parts(data.validation)[1].timestamp.min()
    spoiled.truth[spoiled.timestamp >= start] *= 3.0
    honest = model.fit(data, FitContext(epochs=2))
    other = create(NAME, form=FORM)
    changed = other.fit(dataclasses.replace(data, validation=spoiled), FitContext(epochs=2))
    assert honest.epochs == changed.epochs
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    width = "interval_half_width"
    assert changed.fitted[width] > honest.fitted[width]
    assert {k: v for k, v in honest.fitted.items() if k != width} == {
        k: v for k, v in changed.fitted.items() if k != width
    }
