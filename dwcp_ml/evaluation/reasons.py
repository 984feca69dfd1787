"""Why the gate rejects a model: every reason a sentence with its numbers, weightiest first. Pure.

Nothing passes by default: what is missing, not a number or not known is a reason too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from dwcp_ml.contract.bundle import MAX_MODEL_BYTES
from dwcp_ml.contract.models import Target
from dwcp_ml.contract.records import DataReport, Evaluation, ExportRecord, TrainingRecord
from dwcp_ml.evaluation.labels import apart, is_error, label, quantity, target_label

MAX_MODEL_MB: Final = MAX_MODEL_BYTES / 1e6
MAX_TRAINING_SECONDS: Final = 7200.0
MAX_P99_MS: Final = 10.0


class Severity(IntEnum):
    """What a reason is about; the smaller, the weightier, and the earlier it is listed."""

    NOT_TRAINED = 0
    DATA = 1
    TARGET = 2
    BASELINE = 3
    CEILING = 4
    PARITY = 5
    LIMIT = 6
    SESSION = 7
    CONTEXT = 8


Reasons = Iterator[tuple[Severity, str]]


def rejection_reasons(
    training: TrainingRecord, evaluation: Evaluation, export: ExportRecord, data: DataReport
) -> list[tuple[Severity, str]]:
    """Return every reason to reject, weightiest first; none means approved."""
    if not training.success:
        why = training.reason or "the training gave no reason."
        # What follows from having no model is no reason of its own.
        return [(Severity.NOT_TRAINED, f"not trained: {why}"), *_data(data), *_context(data)]
    reasons = [
        *_data(data),
        *_identity(training, evaluation, export),
        *_limits(training, export),
        *_parity(export),
    ]
    if evaluation.success:
        reasons += [
            *missed_targets(evaluation),
            *_circular(evaluation),
            *_baseline(evaluation),
            *_ceiling(evaluation),
        ]
    else:
        why = evaluation.reason or "the evaluation gave no reason."
        reasons.append((Severity.TARGET, f"not evaluated: {why}"))
    context = _context(data) if reasons else ()
    return [*sorted(reasons, key=lambda reason: reason[0]), *context]


def _data(data: DataReport) -> Reasons:
    for defect in data.defects:
        if defect.verdict == "error":
            yield Severity.DATA, f"the data were refused ({defect.code}): {defect.message}"


def _context(data: DataReport) -> Reasons:
    """Yield what was set aside: no reason by itself, but a reader of a rejection wants to know."""
    if data.rows_quarantined:
        kinds = [
            f"{defect.code}{f' in {defect.column}' if defect.column else ''}: {defect.count}"
            for defect in data.defects
            if defect.verdict == "quarantine"
        ]
        text = (
            f"validation had set aside {data.rows_quarantined} of {data.rows} rows "
            f"({', '.join(kinds) or 'no defect listed'})."
        )
        yield Severity.CONTEXT, text


def missed_targets(evaluation: Evaluation) -> Reasons:
    """Yield what misses its target, judged again from the numbers themselves."""
    if not evaluation.targets:
        yield Severity.TARGET, "no target was set, so none is met."
    for target in evaluation.targets:
        met = target.met_by(evaluation.metrics.get(target.metric))
        if not met or target.metric in evaluation.missed_targets:
            yield Severity.TARGET, _missed(evaluation, target)


def _circular(evaluation: Evaluation) -> Reasons:
    """Yield why agreeing with a formula of the model's own inputs proves nothing."""
    if evaluation.label_source == "cost_model":
        text = (
            "its truth was not measured: without the columns throughput_gain_0 to "
            "throughput_gain_9 the oracle is the documented cost model, a formula of the "
            "model's own inputs, and agreeing with that proves no gain."
        )
        yield Severity.TARGET, text


def _missed(evaluation: Evaluation, target: Target) -> str:
    """Return the sentence about a missed target: its value, best baseline and ceiling beside it."""
    metric, wanted = target.metric, target_label(target)
    achieved = evaluation.metrics.get(metric)
    if achieved is None:
        return f"{label(metric)} is not defined on this test split, so {wanted} is missed."
    sentence = f"{label(metric)} {apart(metric, achieved, target.value)} misses the target {wanted}"
    baseline = best_baseline(evaluation)
    theirs = evaluation.baselines.get(baseline or "", {}).get(metric)
    if theirs is not None:
        sentence += f"; best baseline {baseline} reaches {quantity(metric, theirs)}"
    ceiling = (evaluation.ceiling or {}).get(metric)
    if ceiling is not None and not target.met_by(ceiling):
        reach = quantity(metric, ceiling)
        sentence += f"; on these data no model reaches it, the ceiling is {reach}"
    return f"{sentence}."


def best_baseline(evaluation: Evaluation) -> str | None:
    """Return the name of the baseline that is best on the primary metric; None without any."""
    if evaluation.comparison:
        return evaluation.comparison.baseline
    metric = evaluation.primary_metric
    sign = -1.0 if is_error(metric) else 1.0
    known = {
        n: sign * v for n, m in evaluation.baselines.items() if (v := m.get(metric)) is not None
    }
    return max(known, key=lambda name: known[name]) if known else None


def _baseline(evaluation: Evaluation) -> Reasons:
    found = evaluation.comparison
    if found is None:
        text = (
            f"whether it beats a baseline on {label(evaluation.primary_metric)} is not known: "
            "the test split is too small or too uniform to compare."
        )
        yield Severity.BASELINE, text
    elif not found.beats:
        metric = found.metric
        own = quantity(metric, evaluation.metrics.get(metric))
        theirs = quantity(metric, evaluation.baselines.get(found.baseline, {}).get(metric))
        text = (
            f"{label(metric)} {own} does not beat the best baseline, {found.baseline} with "
            f"{theirs}: the improvement is {quantity(metric, found.improvement)}, with a 95 % "
            f"lower bound of {quantity(metric, found.lower)}, not above 0."
        )
        yield Severity.BASELINE, text


def _ceiling(evaluation: Evaluation) -> Reasons:
    for metric in evaluation.above_ceiling:
        own = quantity(metric, evaluation.metrics.get(metric))
        limit = quantity(metric, (evaluation.ceiling or {}).get(metric))
        text = (
            f"{label(metric)} {own} passes the ceiling {limit} by more than its statistical "
            "error: something the model must not know leaks into it."
        )
        yield Severity.CEILING, text


def _identity(training: TrainingRecord, evaluation: Evaluation, export: ExportRecord) -> Reasons:
    """Yield where the records are not about one and the same model."""
    wanted = (training.model_name, training.version)
    for what, record in (("evaluation", evaluation), ("export", export)):
        found = (record.model_name, record.version)
        if found != wanted:
            text = f"the {what} is of {' '.join(found)}, the training of {' '.join(wanted)}."
            yield Severity.PARITY, text
    if evaluation.form != training.form:
        text = f"the evaluation is of the form {evaluation.form}, the training of {training.form}."
        yield Severity.PARITY, text


def _parity(export: ExportRecord) -> Reasons:
    if not export.success:
        yield Severity.PARITY, f"not exported: {export.reason or 'the export gave no reason.'}"
        return
    missing = [name for name in export.formats if name not in export.parity]
    if missing or not export.parity:
        names = ", ".join(missing) or "any export"
        yield Severity.PARITY, f"that {names} equals what was trained was not measured."
    for name, parity in export.parity.items():
        if not parity.equal:
            text = (
                f"the {name} export differs from what was trained: largest relative difference "
                f"{parity.largest_relative_difference:.3g} (at most {parity.tolerance:.3g}), "
                f"{parity.flipped_decisions} flipped decisions in {parity.rows} rows (none "
                "may be)."
            )
            yield Severity.PARITY, text
        elif parity.rows == 0:
            yield Severity.PARITY, f"the {name} export was compared on no row at all."


def _limits(training: TrainingRecord, export: ExportRecord) -> Reasons:
    limits = (
        ("model size", export.model_size_mb, MAX_MODEL_MB, "MB", "{:.2f}"),
        ("training time", training.training_time_seconds, MAX_TRAINING_SECONDS, "s", "{:.0f}"),
        ("p99 latency of one inference", export.latency_p99_ms, MAX_P99_MS, "ms", "{:.3f}"),
    )
    for what, value, limit, unit, style in limits:
        if value is None or math.isnan(value):
            # Without an export there is nothing to measure; that reason is given already.
            if export.success:
                yield Severity.LIMIT, f"the {what} was not measured (limit {limit:g} {unit})."
        elif not value < limit:
            text = f"the {what} of {style.format(value)} {unit} is not under {limit:g} {unit}."
            yield Severity.LIMIT, text
