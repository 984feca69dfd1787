"""The metrics of each link or node, and of the best strong reference on the same examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Ints
from dwcp_ml.contract.comparison import Comparison, ReferenceKind, Requirement
from dwcp_ml.contract.diagnostics import SeriesMetrics
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.evaluation import comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.labels import is_error
from dwcp_ml.evaluation.metrics import Metrics

Predictions = Mapping[str, Array]
MetricsOf = Callable[[ModelData, Predictions, Blocks], Metrics]

RESAMPLES: Final = 500
"""Draws of the interval of one link: there may be thousands of links."""


@dataclass(frozen=True)
class Shown:
    """What is shown of each link or node, the metric that orders them first."""

    metrics: tuple[str, ...]
    of_nodes: bool = False


SHOWN: Final = {
    "next_throughput_mbps": Shown(("mape_percent", "mae_mbps")),
    "bandwidth_class": Shown(("accuracy",)),
    "compression_level": Shown(("accuracy", "regret")),
    "compression_type": Shown(("accuracy",)),
    "anomaly": Shown(("recall", "false_alarms_per_day"), of_nodes=True),
    "high_latency": Shown(("detection_accuracy", "recall", "false_alarms_per_day"), of_nodes=True),
}
"""By form of the output."""


def series_metrics(
    data: ModelData,
    metrics_of: MetricsOf,
    predictions: Predictions,
    reference: tuple[str, Predictions] | None,
    blocks: Blocks,
    means: Mapping[str, Array],
) -> tuple[SeriesMetrics, ...]:
    """Return the metrics of every link or node of the test split, worst first.

    Parameters
    ----------
    metrics_of
        Returns the metrics of predictions on the test split of some data.
    reference
        Name and predictions of a strong reference, in the outputs of the model.
    means
        Name -> value of each example, (n,), of which the mean is shown as well.
    """
    shown = SHOWN[data.form]
    found = []
    for name, rows in _groups(data, of_nodes=shown.of_nodes):
        part = dataclasses.replace(data, test=data.test.take(rows))
        within = Blocks(blocks.index[rows], blocks.count)
        own = metrics_of(part, _rows(predictions, rows), within)
        values = own.values(within)
        known = {metric: values.get(metric) for metric in shown.metrics}
        known |= {metric: float(np.mean(each[rows])) for metric, each in means.items()}
        theirs: dict[str, float | None] = {}
        compared = None
        if reference is not None:
            other = metrics_of(part, _rows(reference[1], rows), within)
            values = other.values(within)
            theirs = {metric: values.get(metric) for metric in shown.metrics}
            compared = _compared(shown.metrics[0], reference[0], own, other, within)
        found.append(
            SeriesMetrics(
                series=name,
                examples=len(rows),
                metrics=known,
                reference=theirs,
                comparison=compared,
            )
        )
    first = shown.metrics[0]
    return tuple(sorted(found, key=lambda each: _badness(first, each.metrics[first])))


def _groups(data: ModelData, *, of_nodes: bool) -> list[tuple[str, Ints]]:
    """Return the name and the rows of each link or node with an example in the test split."""
    rows: dict[str, list[Ints]] = {}
    for series in np.unique(data.test.series):
        name = data.series_names[series]
        name = name.split("->")[0] if of_nodes else name
        rows.setdefault(name, []).append(np.flatnonzero(data.test.series == series))
    return [(name, np.sort(np.concatenate(parts))) for name, parts in rows.items()]


def _rows(predictions: Predictions, rows: Ints) -> Predictions:
    return {name: np.asarray(values)[rows] for name, values in predictions.items()}


def _compared(
    metric: str, reference: str, own: Metrics, other: Metrics, within: Blocks
) -> Comparison:
    """Return the paired comparison; without an interval where the series has too few blocks."""
    sign = -1.0 if is_error(metric) else 1.0
    values = [
        comparison.sampled(each.statistics[metric], within, RESAMPLES) for each in (own, other)
    ]
    present = Blocks(within.index, len(np.unique(within.index)))
    found = comparison.interval(sign * (values[0] - values[1]), present)
    numbers = [float(each[0]) if np.isfinite(each[0]) else None for each in values]
    return Comparison(
        reference=reference,
        kind=ReferenceKind.STRONG,
        metric=metric,
        requirement=Requirement.NOT_WORSE,
        model_value=numbers[0],
        reference_value=numbers[1],
        improvement=None if None in numbers else sign * float(values[0][0] - values[1][0]),
        lower=None if found is None else found.lower,
        upper=None if found is None else found.upper,
        resamples=0 if found is None else found.resamples,
    )


def _badness(metric: str, value: float | None) -> tuple[bool, float]:
    """Return a key that sorts the worst first, and what is not defined last."""
    if value is None:
        return True, 0.0
    return False, -value if is_error(metric) else value
