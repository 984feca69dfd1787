"""The tables of the model beside its references: their metrics, and the comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from dwcp_ml.contract.comparison import Comparison, Outcome, ReferenceKind
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.evaluation.labels import is_error, label, quantity
from dwcp_ml.evaluation.report.tables import EMPTY, Table

DATA_METRICS = ("mape_excluded_rows", "prevalence", "near_tie_share", "flagged_share")
"""Metrics that are equal for the model and every baseline."""

OUTCOMES = {
    Outcome.BETTER: "better",
    Outcome.AS_GOOD: "as good",
    Outcome.WORSE: "worse",
    Outcome.UNKNOWN: "unknown",
}
"""Words for the model's outcome beside a reference."""


def references(evaluation: Evaluation) -> Table:
    """Return the metrics of the model, each naive baseline and each strong reference."""
    others = {**evaluation.baselines, **evaluation.references}
    shared = [
        name
        for name in evaluation.metrics
        if name not in DATA_METRICS
        and any(values.get(name) is not None for values in others.values())
    ]
    shared = sorted(shared, key=lambda name: name != evaluation.primary_metric)[:6]

    def row(name: str, kind: str, values: Mapping[str, float | None]) -> tuple[str, ...]:
        return (name, kind, *(quantity(metric, values.get(metric)) for metric in shared))

    rows = [row(evaluation.model_name, "model", evaluation.metrics)]
    rows += [row(name, "naive", values) for name, values in evaluation.baselines.items()]
    rows += [row(name, "strong", values) for name, values in evaluation.references.items()]
    header = ("", "", *(f"{label(name)}{' ↓' if is_error(name) else ' ↑'}" for name in shared))
    return Table(header, tuple(rows))


def comparisons(evaluation: Evaluation) -> Table:
    """Return every comparison of the model with a reference, with its interval and its verdict."""
    rows = tuple(_comparison_row(each) for each in evaluation.comparisons)
    header = (
        "reference", "kind", "metric", "model", "reference's", "improvement", "95 % interval",
        "verdict",
    )  # fmt: skip
    draws = max((each.resamples for each in evaluation.comparisons), default=0)
    caption = (
        "The model must be significantly better than every naive reference on "
        f"{label(evaluation.primary_metric)}, not significantly better than the oracle, and not "
        "significantly worse than the reference in any other row (paired block bootstrap, "
        f"{draws:,} draws)."
        if rows
        else "There is no reference to compare the model with."
    )
    return Table(header, rows, caption)


def _comparison_row(comparison: Comparison) -> tuple[str, ...]:
    metric = comparison.metric
    interval = EMPTY
    if comparison.outcome is not Outcome.UNKNOWN:
        ends = (quantity(metric, each) for each in (comparison.lower, comparison.upper))
        interval = " to ".join(ends)
    improvement = comparison.improvement
    verdict = OUTCOMES[comparison.outcome]
    if not comparison.passed:
        verdict += ": rejected"
    elif comparison.kind is ReferenceKind.STRONG and comparison.outcome is Outcome.AS_GOOD:
        verdict += ": finding"
    return (
        comparison.reference,
        comparison.kind,
        label(metric),
        quantity(metric, comparison.model_value),
        quantity(metric, comparison.reference_value),
        EMPTY if improvement is None else quantity(metric, improvement),
        interval,
        verdict,
    )
