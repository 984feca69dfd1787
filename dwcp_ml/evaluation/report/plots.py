"""The plots of the report of a model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import numpy as np

from dwcp_ml.contract.records import ModelReport
from dwcp_ml.evaluation.plot_data import PlotData
from dwcp_ml.evaluation.report import drawing
from dwcp_ml.evaluation.report import plots_detectors as detectors
from dwcp_ml.evaluation.report import plots_values as values
from dwcp_ml.evaluation.report.axes import legend_above, plain_decade
from dwcp_ml.evaluation.report.drawing import GOOD, MODEL, QUIET, Drawn, Plot
from dwcp_ml.evaluation.report.plots_diagnostics import diagnostics_plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURES: Final[tuple[tuple[tuple[str, ...], Callable[..., Iterator[Drawn]]], ...]] = (
    (("prediction", "truth"), values.prediction_against_truth),
    (("excerpt_truth", "excerpt_timestamp"), values.excerpt),
    (("prediction", "truth"), values.residuals),
    (("confusion",), values.confusion),
    (("regret",), values.regret),
    (("curve", "prevalence"), detectors.precision_recall),
    (("score", "truth", "threshold"), detectors.scores),
    (("error", "truth", "threshold", "series_name"), detectors.error_in_time),
    (("errors_normal", "errors_high", "threshold"), detectors.errors),
)
"""Names of the arrays that each figure needs, and the function that draws it."""


def plots_of(report: ModelReport, plot_data: PlotData | None) -> tuple[Plot, ...]:
    """Return the plots of a report whose arrays are in the plot data."""
    import matplotlib as mpl

    drawings: list[Drawn] = []
    if plot_data is not None and report.evaluation.success:
        for needed, draw in FIGURES:
            if all(name in plot_data for name in needed):
                drawings += draw(report, plot_data)
    drawings += diagnostics_plots(report)
    if report.training.epochs:
        drawings += _learning_curve(report)
    plots = []
    for name, title, description, draw_on, height in drawings:
        with mpl.rc_context(drawing.STYLE):
            figure, axes = drawing.figure(height)
            draw_on(axes)
            plots.append(Plot(name, title, description, drawing.svg(figure, _id(report, name))))
    return tuple(plots)


def _id(report: ModelReport, name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", f"{report.model_name}-{name}".lower())


def _learning_curve(report: ModelReport) -> Iterator[Drawn]:
    epochs = report.training.epochs
    numbers = [epoch.epoch for epoch in epochs]
    rates = [epoch.dropout for epoch in epochs]

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        axes.plot(numbers, [e.loss for e in epochs], "o--", color=QUIET, label="training", ms=4)
        axes.plot(
            numbers,
            [e.validation_loss for e in epochs],
            "o-",
            color=MODEL,
            label="validation",
            ms=4,
        )
        positive = all(min(e.loss, e.validation_loss) > 0 for e in epochs)
        axes.set(xlabel="epoch", ylabel="loss", yscale="log" if positive else "linear")
        if positive:
            plain_decade(axes.yaxis, between=True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if any(rate is not None for rate in rates):
            twin = axes.twinx()
            values = [np.nan if rate is None else rate for rate in rates]
            twin.fill_between(numbers, values, color=GOOD, alpha=0.18, step="mid", linewidth=0)
            twin.plot([], [], color=GOOD, alpha=0.4, linewidth=6)
            twin.set(
                ylim=(0, 1.05 * max(1e-9, np.nanmax(values))),
                ylabel="share of the full dropout (shaded)",
            )
            twin.grid(visible=False)
            twin.spines["right"].set_visible(True)
        legend_above(axes)

    best = min(epoch.validation_loss for epoch in epochs)
    text = (
        f"Loss on training and validation examples over {len(epochs)} epochs; the dropout is "
        f"shaded. The lowest validation loss is {best:.4g}."
    )
    yield "learning", "Learning curve", text, draw, 3.4
