"""Plots of the two detectors: scores, errors, thresholds, incidents and episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from dwcp_ml.contract.arrays import Array
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.evaluation.labels import quantity
from dwcp_ml.evaluation.plot_data import PlotData
from dwcp_ml.evaluation.report.axes import (
    legend_above,
    most_changes,
    outline,
    runs,
    time_axis,
    times,
    with_gaps,
)
from dwcp_ml.evaluation.report.drawing import ALARM, BASELINE_STYLES, INK, MODEL, QUIET, Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def precision_recall(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw precision against recall, of the model, the baselines and the references."""
    evaluation = report.evaluation
    methods = {**evaluation.baselines, **evaluation.references}

    def draw(axes: Axes) -> None:
        curves = plot_data.scores("curve")
        for (name, curve), (colour, dashes) in zip(curves.items(), BASELINE_STYLES, strict=False):
            area = methods.get(name, {}).get("pr_auc")
            axes.plot(*curve, color=colour, linestyle=dashes, label=f"{name} {_short(area)}")
        area = evaluation.metrics.get("pr_auc")
        axes.plot(*plot_data["curve"], color=MODEL, linewidth=2.2, label=f"model {_short(area)}")
        recall, precision = (evaluation.metrics.get(n) for n in ("recall", "precision"))
        axes.plot(
            [np.nan if recall is None else recall],
            [np.nan if precision is None else precision],
            "o", color=MODEL, markersize=7, label="its threshold",
        )  # fmt: skip
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.03))
        axes.legend(loc="best", fontsize=9)

    area = evaluation.metrics.get("pr_auc")
    share = float(plot_data["prevalence"])
    text = (
        "Precision against recall as the threshold falls, of the model, the baselines and the "
        f"reference, with the area under each curve; a random score has {share:.3f}. The model has "
        f"{quantity('pr_auc', area)}; the dot is its threshold."
    )
    yield "precision-recall", "Precision and recall", text, draw, 4.0


def scores(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw the anomaly scores inside and outside incidents."""
    truth, score = plot_data["truth"].astype(bool), plot_data["score"]
    parts = (score[~truth], score[truth])
    yield _distributions(report, parts, plot_data, "incident", "anomaly score")


def errors(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw the reconstruction errors inside and outside episodes."""
    parts = (plot_data["errors_normal"], plot_data["errors_high"])
    yield _distributions(report, parts, plot_data, "episode", "reconstruction error")


def _distributions(
    report: ModelReport, parts: tuple[Array, Array], plot_data: PlotData, what: str, axis: str
) -> Drawn:
    threshold = float(plot_data["threshold"])
    everything = np.concatenate(parts)
    logarithmic = axis != "anomaly score"

    def draw(axes: Axes) -> None:
        low, high = float(everything.min()), float(everything.max())
        low, high = min(low, threshold), max(high, threshold)
        bins = np.linspace(low, high, 61)
        if logarithmic:
            bins = np.geomspace(max(low, 1e-4), max(high, 2e-4), 61)
            axes.set_xscale("log")
        outline(axes, parts[0], bins, MODEL, "normal", "-", fill=True)
        outline(axes, parts[1], bins, ALARM, what, "--", fill=True)
        axes.axvline(threshold, color=INK, linewidth=1.2, label="threshold")
        axes.set(xlabel=axis, ylabel="share of each")
        axes.set_ylim(bottom=0)
        legend_above(axes)

    share = report.evaluation.metrics.get("recall")
    text = (
        f"Distribution of the {axis} of normal operation and of rows in an {what}, and the "
        f"threshold, {threshold:.4g}, above which the model flags. "
        f"Recall {quantity('recall', share)}."
    )
    return "distributions", f"Distribution of the {axis}", text, draw, 3.5


def error_in_time(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw the reconstruction error of one node over time, episodes shaded."""
    name = str(plot_data["series_name"])
    moments, truth = times(plot_data["timestamp"]), plot_data["truth"].astype(bool)
    rows = most_changes(truth, 600)

    def draw(axes: Axes) -> None:
        inside = truth[rows]
        for start, end in runs(inside):
            label_ = "episode" if start == runs(inside)[0][0] else None
            span = moments[rows][[start, end]]
            axes.axvspan(span[0], span[1], color=ALARM, alpha=0.22, linewidth=0, label=label_)
        gaps = with_gaps(moments[rows])
        axes.plot(*gaps(plot_data["error"][rows]), color=MODEL, linewidth=1.2, label="error")
        for key, colour, dashes in (("threshold", INK, "-"), ("threshold_at_98", QUIET, ":")):
            if np.isfinite(plot_data[key]):
                words = "threshold" if key == "threshold" else "98th percentile"
                axes.axhline(
                    float(plot_data[key]), color=colour, linestyle=dashes, linewidth=1, label=words
                )
        axes.set(yscale="log", ylabel="reconstruction error")
        time_axis(axes)
        legend_above(axes)

    accuracy = report.evaluation.metrics.get("detection_accuracy")
    text = (
        f"Reconstruction error of the windows of {name} over time, with the threshold and the 98th "
        "percentile. Windows in a labelled episode are shaded. "
        f"Detection accuracy over all nodes {quantity('detection_accuracy', accuracy)}."
    )
    yield "errors", f"Reconstruction error in time: {name}", text, draw, 3.6


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
