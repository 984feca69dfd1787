"""The tables of the model beside its references and the champion: metrics and comparisons."""

from __future__ import annotations

from collections.abc import Mapping

from dwcp_ml.contract.champion import QUANTILES, SAME, ChampionRecord
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
    """Return the comparisons with the references, each with its interval and its verdict."""
    others = [each for each in evaluation.comparisons if each.kind is not ReferenceKind.CHAMPION]
    rows = tuple(_comparison_row(each) for each in others)
    header = (
        "reference", "kind", "metric", "model", "reference's", "improvement", "95 % interval",
        "verdict",
    )  # fmt: skip
    draws = max((each.resamples for each in others), default=0)
    caption = (
        "The model must be significantly better than every naive reference on "
        f"{label(evaluation.primary_metric)}, not significantly better than the oracle, and not "
        "significantly worse than the reference in any other row (paired block bootstrap, "
        f"{draws:,} draws)."
        if rows
        else "There is no reference to compare the model with."
    )
    return Table(header, rows, caption)


def champion(evaluation: Evaluation) -> Table | None:
    """Return both metrics, the comparison, and how predictions differ; None if not compared."""
    record = evaluation.champion.record if evaluation.champion else None
    if record is None:
        return None
    compared = {
        each.metric: _comparison_row(each)
        for each in evaluation.comparisons
        if each.kind is ReferenceKind.CHAMPION
    }
    names = (name for name in record.metrics if name not in DATA_METRICS)
    rows = tuple(
        (
            label(name),
            quantity(name, evaluation.metrics.get(name)),
            quantity(name, record.metrics[name]),
            *(compared[name][-3:] if name in compared else (EMPTY,) * 3),
        )
        for name in sorted(names, key=lambda name: name not in compared)
    )
    header = ("metric", "model", "champion's", "improvement", "95 % interval", "verdict")
    return Table(header, rows, f"The champion is {record.version}. {_difference(record)}")


def _difference(record: ChampionRecord) -> str:
    """Return how the predictions of the two differ, in a sentence."""
    difference = record.difference
    share = (
        f"{difference.changed:.1%} of the {difference.examples:,} predictions, and in up to "
        f"{difference.largest_changed:.1%} of those of one link or node"
    )
    if difference.quantiles is None:
        return f"The class differs in {share}."
    at = dict(zip(QUANTILES, difference.quantiles, strict=True))
    return (
        f"The number differs by more than {SAME:.1%} in {share}; the relative difference from the "
        f"champion is {at[0.5]:+.1%} in the median, {at[0.1]:+.1%} and {at[0.9]:+.1%} at the 10 % "
        "and 90 % quantiles."
    )


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
