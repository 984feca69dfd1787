"""Plots of the diagnostics: importance of the features, calibration of the score."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dwcp_ml.contract.diagnostics import PermutationImportance, ScoreCalibration
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.evaluation.labels import WORDINGS, label
from dwcp_ml.evaluation.report.axes import legend_above
from dwcp_ml.evaluation.report.drawing import INK, MODEL, QUIET, Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def diagnostics_plots(report: ModelReport) -> Iterator[Drawn]:
    """Draw the diagnostics that there are."""
    shown = report.evaluation.diagnostics
    if shown is None:
        return
    if shown.calibration is not None:
        yield _calibration(shown.calibration)
    if shown.importance is not None:
        yield _importance(shown.importance)


def _importance(shown: PermutationImportance) -> Drawn:
    features = shown.features[::-1]  # the first is at the bottom

    def draw(axes: Axes) -> None:
        axes.barh(
            [each.feature for each in features],
            [each.loss for each in features],
            xerr=[each.deviation for each in features],
            color=MODEL,
            ecolor=INK,
            capsize=2,
        )
        unit = WORDINGS[shown.metric].unit if shown.metric in WORDINGS else ""
        axes.set_xlabel(f"worsening of {label(shown.metric)}{f', {unit}' if unit else ''}")
        axes.grid(visible=False, axis="y")

    text = (
        f"How much worse {label(shown.metric)} is when one feature is exchanged between blocks of "
        f"time; the lines are standard deviations of {shown.repetitions} repetitions. The most "
        f"important one is {shown.features[0].feature}."
    )
    return "importance", "Importance of the features", text, draw, 1.2 + 0.32 * len(features)


def _calibration(shown: ScoreCalibration) -> Drawn:
    means = [each.mean_score for each in shown.bins]
    shares = [each.share for each in shown.bins]
    below = [each.share - each.share_lower for each in shown.bins]
    above = [each.share_upper - each.share for each in shown.bins]

    def draw(axes: Axes) -> None:
        if shown.is_probability:
            axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", label="calibrated")
        axes.errorbar(
            means,
            shares,
            yerr=[[max(0.0, each) for each in ends] for ends in (below, above)],
            fmt="o-",
            color=MODEL,
            ecolor=INK,
            capsize=2,
            markersize=4,
            label="test split",
        )
        what = "right predictions" if shown.is_probability else "anomalies"
        axes.set(xlabel=f"mean {shown.output.replace('_', ' ')}", ylabel=f"share of {what}")
        axes.set_ylim(-0.03, 1.03)
        legend_above(axes)

    meaning = (
        "On the dotted line the probability equals the share of right predictions."
        if shown.is_probability
        else "The score is no probability; it should only rise."
    )
    text = (
        f"Observed share by {shown.output.replace('_', ' ')} on the test split, with 95 % "
        f"intervals. {meaning}"
    )
    return "calibration", "Calibration of the score", text, draw, 3.4
