"""Plots of predicted values and of chosen classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from dwcp_ml.contract.arrays import Array
from dwcp_ml.contract.models import BANDWIDTH_CLASSES, COMPRESSION_TYPES
from dwcp_ml.contract.records import ModelReport
from dwcp_ml.evaluation.labels import quantity
from dwcp_ml.evaluation.plot_data import PlotData
from dwcp_ml.evaluation.reasons import best_baseline
from dwcp_ml.evaluation.report.axes import (
    exceedance,
    legend_above,
    outline,
    plain_decade,
    time_axis,
    times,
    with_gaps,
)
from dwcp_ml.evaluation.report.drawing import (
    ALARM,
    BASELINE,
    BASELINE_STYLES,
    INK,
    MODEL,
    RASTER,
    Drawn,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES: Final = {"bandwidth_class": BANDWIDTH_CLASSES, "compression_type": COMPRESSION_TYPES}


def prediction_against_truth(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw every predicted value against the measured one."""
    truth, prediction = plot_data["truth"], np.maximum(plot_data["prediction"], 1e-3)
    step = max(1, len(truth) // 6000)

    def draw(axes: Axes) -> None:
        low, high = max(float(truth.min()), 0.1), float(max(truth.max(), prediction.max()))
        axes.plot([low, high], [low, high], color=INK, linewidth=1.0, label="exact", zorder=3)
        axes.scatter(
            truth[::step], prediction[::step], s=5, color=RASTER, alpha=0.35, linewidths=0,
            rasterized=True,
        )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="throughput, Mbit/s")
        axes.set_ylabel("predicted, Mbit/s")
        plain_decade(axes.xaxis)
        plain_decade(axes.yaxis)
        axes.legend(loc="upper left")

    correlation = report.evaluation.metrics.get("correlation")
    text = (
        f"Predicted against measured throughput of {len(truth):,} test windows on logarithmic "
        "axes; on the line the prediction is exact. "
        f"Correlation {quantity('correlation', correlation)}."
    )
    yield "truth", "Prediction against measurement", text, draw, 4.2


def excerpt(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw one link over time."""
    moments = times(plot_data["excerpt_timestamp"])
    name = str(plot_data["excerpt_name"])
    rows = slice(0, 180)
    best = best_baseline(report.evaluation) or ""
    others = plot_data.scores("excerpt_baseline")

    def draw(axes: Axes) -> None:
        gaps = with_gaps(moments[rows])
        for values, colour, text, style in (
            (others.get(best), BASELINE, best, ":"),
            (plot_data["excerpt_truth"], INK, "measured", "-"),
            (plot_data["excerpt_prediction"], MODEL, "predicted", "-"),
        ):
            if values is not None:
                width = 1.1 if colour == INK else 1.6
                axes.plot(*gaps(values[rows]), style, color=colour, label=text, linewidth=width)
        axes.set_ylabel("throughput, Mbit/s")
        time_axis(axes)
        legend_above(axes)

    text = (
        f"Measured and predicted throughput of the link {name} over {len(moments[rows])} steps of "
        f"the test split{f', with the best baseline, {best}' if best in others else ''}."
    )
    yield "excerpt", f"One link in time: {name}", text, draw, 3.5


def residuals(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw the distribution of the relative errors."""
    truth = plot_data["truth"]
    counted = truth >= 1.0
    best = best_baseline(report.evaluation) or ""
    if not counted.any():
        return

    def relative(values: Array) -> Array:
        return 100.0 * (values[counted] - truth[counted]) / truth[counted]

    own = relative(plot_data["prediction"])
    reach = float(max(np.quantile(np.abs(own), 0.99), 1.0))

    def draw(axes: Axes) -> None:
        bins = np.linspace(-reach, reach, 61)
        others = plot_data.scores("baseline")
        if best in others:
            outline(axes, relative(others[best]), bins, BASELINE, best, "--")
        outline(axes, own, bins, MODEL, "model", "-", fill=True)
        axes.axvline(0.0, color=INK, linewidth=0.8)
        axes.set(xlabel="error of the prediction, % of the measured value", ylabel="share of rows")
        axes.set_ylim(bottom=0)
        axes.legend()

    mape = report.evaluation.metrics.get("mape_percent")
    text = (
        f"Distribution of the relative errors of the model and of {best or 'no baseline'}; "
        "narrower and centred on 0 is better; larger errors are in the outermost bars. "
        f"MAPE {quantity('mape_percent', mape)}, median error {np.median(own):+.2f} %."
    )
    yield "residuals", "Residuals", text, draw, 3.5


def confusion(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw the confusion matrix."""
    counts = plot_data["confusion"]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = CLASSES.get(report.evaluation.form, tuple(map(str, range(len(counts)))))
    small = 8 if len(counts) > 5 else 11

    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        axes.grid(visible=False)
        for row, column in np.ndindex(*counts.shape):
            right = row == column
            alpha = float(0.75 * shares[row, column])
            colour = MODEL if right else ALARM
            corner = (column - 0.5, row - 0.5)
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=alpha, linewidth=0))
            if counts[row, column]:
                words = f"{counts[row, column]}"
                axes.text(column, row, words, ha="center", va="center", fontsize=small)
        axes.set(xlim=(-0.5, len(counts) - 0.5), ylim=(len(counts) - 0.5, -0.5))
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="chosen by the model", ylabel="chosen by the oracle")

    accuracy = report.evaluation.metrics.get("accuracy")
    text = (
        f"Predicted classes (columns) of the examples of each true class (rows); the diagonal is "
        f"right. Accuracy {quantity('accuracy', accuracy)} on {int(counts.sum()):,} rows."
    )
    yield "confusion", "Confusion matrix", text, draw, 4.6 if len(counts) > 5 else 3.6


def regret(report: ModelReport, plot_data: PlotData) -> Iterator[Drawn]:
    """Draw the distribution of the regret."""
    own = plot_data["regret"]
    others = plot_data.scores("regret")

    def draw(axes: Axes) -> None:
        for (name, values), (colour, dashes) in zip(others.items(), BASELINE_STYLES, strict=False):
            exceedance(axes, values, colour, name, dashes)
        exceedance(axes, own, MODEL, "model", "-")
        axes.set(
            xscale="log", yscale="log", xlabel="regret: gain of the oracle minus gain of the choice"
        )
        axes.set_ylabel("share of rows with more")
        legend_above(axes)

    regret = report.evaluation.metrics.get("regret")
    text = (
        "Share of the test rows whose throughput gain is below the oracle's by more than the "
        f"value on the axis; lower is better. Mean regret {quantity('regret', regret)}."
    )
    yield "regret", "Regret against the oracle", text, draw, 3.7
