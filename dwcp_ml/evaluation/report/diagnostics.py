"""The tables of the diagnostics: by link or node, intervals, scores, features."""

from __future__ import annotations

from typing import Final

from dwcp_ml.contract.comparison import Outcome
from dwcp_ml.contract.diagnostics import (
    Diagnostics,
    IntervalCoverage,
    PermutationImportance,
    ScoreCalibration,
    SeriesMetrics,
)
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.evaluation.labels import label, quantity
from dwcp_ml.evaluation.report.tables import EMPTY, Table
from dwcp_ml.rollout.drift import LARGE_PSI, SOME_PSI

MAX_SERIES: Final = 20
"""Links or nodes in the table of a report; ``report.json`` has all."""


def diagnostics(evaluation: Evaluation) -> tuple[tuple[str, Table], ...]:
    """Return title and table of each diagnostic that there is; nothing in them is a reason."""
    shown = evaluation.diagnostics
    if shown is None:
        return ()
    found: dict[str, Table | None] = {
        "By link or node": series(shown) if shown.series else None,
        "Prediction intervals": intervals(shown.intervals) if shown.intervals else None,
        "Calibration of the score": calibration(shown.calibration) if shown.calibration else None,
        "Importance of the features": importance(shown.importance) if shown.importance else None,
        "Drift from training to test": drift(shown) if shown.drift else None,
    }
    return tuple((title, table) for title, table in found.items() if table is not None)


def series(shown: Diagnostics) -> Table:
    """Return the worst links or nodes, each beside the best strong reference."""
    first = shown.series[0]
    beside = tuple(name for name in first.reference if name in first.metrics)
    header = ["", "examples"]
    for metric in first.metrics:
        header.append(label(metric))
        header += ["reference's"] if metric in beside else []
    compared = first.comparison is not None
    header += ["improvement", "95 % interval", "model is"] if compared else []
    rows = []
    for each in shown.series[:MAX_SERIES]:
        cells = [each.series, f"{each.examples:,}"]
        for metric, value in each.metrics.items():
            cells.append(quantity(metric, value))
            cells += [quantity(metric, each.reference.get(metric))] if metric in beside else []
        rows.append((*cells, *_compared(each)))
    return Table(tuple(header), tuple(rows), _series_caption(shown.series))


def _compared(each: SeriesMetrics) -> tuple[str, ...]:
    found = each.comparison
    if found is None:
        return ()
    interval = EMPTY
    if found.outcome is not Outcome.UNKNOWN:
        interval = " to ".join(quantity(found.metric, end) for end in (found.lower, found.upper))
    words = {
        Outcome.BETTER: "better",
        Outcome.WORSE: "worse",
        Outcome.AS_GOOD: "as good",
        Outcome.UNKNOWN: "unknown",
    }[found.outcome]
    return quantity(found.metric, found.improvement), interval, words


def _series_caption(every: tuple[SeriesMetrics, ...]) -> str:
    shown = f"The worst {MAX_SERIES} of {len(every):,}; report.json has all. "
    caption = shown if len(every) > MAX_SERIES else ""
    comparisons = [each.comparison for each in every if each.comparison is not None]
    if not comparisons:
        return f"{caption}For the reader: no part of the verdict."
    reference, metric = comparisons[0].reference, label(comparisons[0].metric)
    ahead = sum((each.improvement or 0.0) > 0 for each in comparisons)
    significant = {
        outcome: sum(each.outcome is outcome for each in comparisons)
        for outcome in (Outcome.BETTER, Outcome.WORSE)
    }
    return (
        f"{caption}On {metric} the model is ahead of {reference}, the best strong reference, on "
        f"{ahead} of {len(comparisons)}: significantly on {significant[Outcome.BETTER]}, "
        f"significantly behind on {significant[Outcome.WORSE]} (paired block bootstrap). For the "
        "reader: no part of the verdict."
    )


def intervals(shown: IntervalCoverage) -> Table:
    """Return nominal and observed coverage, and the width."""
    between = EMPTY
    if shown.lower is not None and shown.upper is not None:
        between = f"{_percent(shown.lower)} to {_percent(shown.upper)}"
    header = ("nominal", "observed on test", "95 % interval", "median width", "calibrated on")
    row = (
        _percent(shown.nominal),
        _percent(shown.coverage),
        between,
        f"{_percent(shown.median_width)} of the prediction",
        f"{shown.calibration_examples:,} examples",
    )
    caption = (
        "Split conformal intervals, calibrated on the last part of the validation split, which "
        "chose nothing else. The coverage holds for all links together, not for each, and for "
        "data like those of the calibration."
    )
    return Table(header, (row,), caption)


def calibration(shown: ScoreCalibration) -> Table:
    """Return the observed share of positives in each bin of the score."""
    rows = tuple(
        (
            f"{each.lower:.4g} to {each.upper:.4g}",
            f"{each.examples:,}",
            f"{each.positives:,}",
            _percent(each.share),
            f"{_percent(each.share_lower)} to {_percent(each.share_upper)}",
        )
        for each in shown.bins
    )
    what = "right" if shown.is_probability else "anomalous"
    header = (shown.output, "examples", what, "share", "95 % interval (Wilson)")
    if shown.is_probability:
        caption = (
            "The probability of the predicted class beside the share of right predictions. Brier "
            f"score {shown.brier_score:.4f}, expected calibration error "
            f"{shown.expected_calibration_error:.4f}."
        )
    else:
        caption = (
            f"{shown.output} orders the examples and is no probability, so it has no Brier score: "
            "the share says what a score was worth on the test split, where anomalies are as "
            "frequent as there. The bins are quantiles of the score, finer at the top."
        )
    return Table(header, rows, f"{caption} The intervals treat the examples as independent.")


def importance(shown: PermutationImportance) -> Table:
    """Return how much worse the metric is without each feature."""
    metric = shown.metric
    rows = tuple(
        (each.feature, quantity(metric, each.loss), quantity(metric, each.deviation))
        for each in shown.features
    )
    header = ("feature", f"worsening of {label(metric)}", "std. deviation")
    caption = (
        f"Each feature in turn is exchanged, over the whole window, between blocks of time of the "
        f"links, {shown.repetitions} times on {shown.examples:,} test examples, where "
        f"{label(metric)} is {quantity(metric, shown.value)} otherwise. A feature that others "
        "replace has little importance."
    )
    return Table(header, rows, caption)


def drift(shown: Diagnostics) -> Table:
    """Return how far each feature of the test split lies from the training split."""
    rows = tuple(
        (
            each.feature,
            *(f"{n:.3f}" for n in (each.psi, each.chance_psi, each.ks)),
            _level(each.psi),
        )
        for each in shown.drift
    )
    header = ("feature", "PSI", "by chance below", "KS", "drift")
    caption = (
        "Population stability index over 20 quantiles of the training split, and the "
        "Kolmogorov-Smirnov distance. For the reader: no part of the verdict."
    )
    return Table(header, rows, caption)


def _level(psi: float) -> str:
    if psi < SOME_PSI:
        return "little"
    return "some" if psi < LARGE_PSI else "large"


def _percent(share: float) -> str:
    return f"{100.0 * share:.1f} %"
