"""Why the gate rejects a model: each reason is a sentence with its numbers, most important first.

Nothing passes by default: a value that is missing, undefined or not a number is a reason to reject.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from enum import IntEnum
from typing import Final

from dwcp_ml.contract.bundle import MAX_MODEL_BYTES, MAX_P99_MS
from dwcp_ml.contract.comparison import Comparison, Outcome, ReferenceKind, Requirement
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import MODELS, Form, Target
from dwcp_ml.contract.records import DataReport, ExportRecord, TrainingRecord
from dwcp_ml.evaluation.labels import capitalized, distinct, is_error, label, quantity, target_label
from dwcp_ml.evaluation.leaks.text import describe

MAX_MODEL_MB: Final = MAX_MODEL_BYTES / 1e6
MAX_TRAINING_SECONDS: Final = 7200.0


class Severity(IntEnum):
    """What a reason is about; reasons are listed in the order of these values."""

    NOT_TRAINED = 0
    DATA = 1
    LEAK = 2
    TARGET = 3
    BASELINE = 4
    CHAMPION = 5
    PARITY = 6
    LIMIT = 7
    SESSION = 8
    CONTEXT = 9


Reasons = Iterator[tuple[Severity, str]]


def rejection_reasons(
    training: TrainingRecord, evaluation: Evaluation, export: ExportRecord, data: DataReport
) -> list[tuple[Severity, str]]:
    """Return every reason to reject, most important first; an approved model has none."""
    if not training.success:
        why = training.reason or "The training gave no reason."
        # Without a model every later step fails too; those failures are not listed.
        return [(Severity.NOT_TRAINED, f"Not trained: {why}"), *_data(data), *_context(data)]
    reasons = [
        *_data(data),
        *_identity(training, evaluation, export),
        *_limits(training, export),
        *_parity(export),
    ]
    if evaluation.success:
        reasons += [
            *_leaks(evaluation),
            *_oracle(evaluation),
            *missed_targets(evaluation),
            *_circular(evaluation),
            *_references(evaluation),
            *_champion(evaluation),
        ]
    else:
        why = evaluation.reason or "The evaluation gave no reason."
        reasons.append((Severity.TARGET, f"Not evaluated: {why}"))
    context = _context(data) if reasons else ()
    return [*sorted(reasons, key=lambda reason: reason[0]), *context]


def _data(data: DataReport) -> Reasons:
    for defect in data.defects:
        if defect.verdict == "error":
            yield Severity.DATA, f"The data are invalid ({defect.code}): {defect.message}"


def _context(data: DataReport) -> Reasons:
    """Yield the number of quarantined rows, which may explain the other reasons."""
    if data.rows_quarantined:
        kinds = [
            f"{defect.code}{f' in {defect.column}' if defect.column else ''}: {defect.count}"
            for defect in data.defects
            if defect.verdict == "quarantine"
        ]
        text = (
            f"Validation quarantined {data.rows_quarantined} of {data.rows} rows "
            f"({', '.join(kinds) or 'no defect listed'})."
        )
        yield Severity.CONTEXT, text


def missed_targets(evaluation: Evaluation) -> Reasons:
    """Yield a reason for each missed target, computed again from the metrics."""
    if not evaluation.targets:
        yield Severity.TARGET, "No target was set, so none is met."
    for target in evaluation.targets:
        met = target.met_by(evaluation.metrics.get(target.metric))
        if not met or target.metric in evaluation.missed_targets:
            yield Severity.TARGET, _missed(evaluation, target)


def _leaks(evaluation: Evaluation) -> Reasons:
    """Yield a reason for each leak that the user did not accept."""
    for leak in evaluation.leaks:
        if not leak.accepted:
            yield Severity.LEAK, f"Leak ({leak.kind}): {describe(leak)}"


def _oracle(evaluation: Evaluation) -> Reasons:
    """Yield a reason for each metric that is better than that of the simulator's oracle."""
    for comparison in _failed(evaluation):
        if comparison.kind is ReferenceKind.ORACLE:
            limit = quantity(comparison.metric, comparison.margin) if comparison.margin else "0"
            text = (
                f"{_numbers(comparison, 'is better than')}; the lower end must not be above "
                f"{limit}: labels or future values leak into the features."
            )
            yield Severity.LEAK, text


def _failed(evaluation: Evaluation) -> Iterator[Comparison]:
    """Yield each comparison with an interval that decides against the model."""
    for comparison in evaluation.comparisons:
        if not comparison.passed and comparison.outcome is not Outcome.UNKNOWN:
            yield comparison


def _circular(evaluation: Evaluation) -> Reasons:
    """Yield a reason where the ground truth is a formula of the model's own inputs."""
    if evaluation.label_source == "cost_model":
        text = (
            "The ground truth was not measured: without the columns throughput_gain_0 to "
            "throughput_gain_9 the oracle is the documented cost model, a formula of the model's "
            "own inputs, so its accuracy does not show a gain in throughput."
        )
        yield Severity.TARGET, text


def _missed(evaluation: Evaluation, target: Target) -> str:
    """Return the sentence about a missed target: its value, best baseline and ceiling beside it."""
    metric = target.metric
    name, limit = capitalized(label(metric)), target_label(target)
    achieved = evaluation.metrics.get(metric)
    if achieved is None:
        return f"{name} is not defined on this test split, so {limit} is missed."
    sentence = f"{name} {distinct(metric, achieved, target.value)} misses the target {limit}"
    baseline = best_baseline(evaluation)
    baseline_value = evaluation.baselines.get(baseline or "", {}).get(metric)
    if baseline_value is not None:
        sentence += f"; the best baseline, {baseline}, has {quantity(metric, baseline_value)}"
    ceiling = (evaluation.ceiling or {}).get(metric)
    if ceiling is not None and not target.met_by(ceiling):
        sentence += (
            f"; no model can meet it on these data: the ceiling is {quantity(metric, ceiling)}"
        )
    return f"{sentence}."


def best_baseline(evaluation: Evaluation) -> str | None:
    """Return the naive baseline that is best on the primary metric; None if none has it."""
    metric = evaluation.primary_metric
    sign = -1.0 if is_error(metric) else 1.0
    values = evaluation.baselines.items()
    scores = {n: sign * v for n, m in values if (v := m.get(metric)) is not None}
    return max(scores, key=lambda name: scores[name], default=None)


def _references(evaluation: Evaluation) -> Reasons:
    """Yield a reason for each naive baseline not beaten, and each reference that is better."""
    yield from _not_compared(evaluation)
    for comparison in _failed(evaluation):
        if comparison.kind in (ReferenceKind.NAIVE, ReferenceKind.STRONG):
            yield Severity.BASELINE, _lost(comparison)


def _champion(evaluation: Evaluation) -> Reasons:
    """Yield a reason if the model is not what the run's rule requires of it beside the champion."""
    for comparison in evaluation.comparisons:
        if comparison.kind is not ReferenceKind.CHAMPION or comparison.passed:
            continue
        if comparison.outcome is Outcome.UNKNOWN:
            text = (
                f"It is unknown how the model compares with the champion {comparison.reference} on "
                f"{label(comparison.metric)}: the test split is too small or too uniform."
            )
            yield Severity.CHAMPION, text
        else:
            yield Severity.CHAMPION, _lost(comparison)


def _not_compared(evaluation: Evaluation) -> Reasons:
    """Yield a reason for each metric on which the outcome with a reference is unknown."""
    known = {
        (each.metric, each.reference)
        for each in evaluation.comparisons
        if each.outcome is not Outcome.UNKNOWN
    }
    form = _form(evaluation)
    primary = {**evaluation.baselines, **evaluation.references}
    guards = dict.fromkeys(form.guards if form else (), evaluation.baselines)
    on_metric = {evaluation.primary_metric: primary, **guards}
    for metric, references in on_metric.items():
        having = [name for name, values in references.items() if values.get(metric) is not None]
        if metric == evaluation.primary_metric:
            having = list(dict.fromkeys([*having, *(form.strong if form else ())]))
        unknown = [name for name in having if (metric, name) not in known]
        nothing = metric == evaluation.primary_metric and best_baseline(evaluation) is None
        if unknown or nothing:
            text = (
                f"It is unknown how the model compares with {', '.join(unknown) or 'any baseline'} "
                f"on {label(metric)}: the test split is too small or too uniform."
            )
            yield Severity.BASELINE, text


def _form(evaluation: Evaluation) -> Form | None:
    """Return the evaluated form; none if it is not in the contract."""
    spec = MODELS.get(evaluation.model_name)
    forms = () if spec is None else spec.forms
    return next((form for form in forms if form.name == evaluation.form), None)


def _lost(comparison: Comparison) -> str:
    """Return the sentence about a reference that decides against the model, with its numbers."""
    must_beat = comparison.requirement is Requirement.BETTER
    verb = "does not beat" if must_beat else "is worse than that of"
    margin = comparison.margin
    least = quantity(comparison.metric, -margin) if margin else "0"
    limit = (
        "the lower end must be above 0" if must_beat else f"the upper end must not be below {least}"
    )
    return f"{_numbers(comparison, verb)}; {limit}."


def _numbers(comparison: Comparison, verb: str) -> str:
    """Return the sentence about a comparison up to its interval, without the full stop."""
    metric, oracle = comparison.metric, comparison.kind is ReferenceKind.ORACLE
    champion = comparison.kind is ReferenceKind.CHAMPION
    numbers = (comparison.improvement, comparison.lower, comparison.upper)
    improvement, lower, upper = (quantity(metric, each) for each in numbers)
    kind = "champion" if champion else f"{comparison.kind} reference"
    name = "oracle" if oracle else f"{kind} {comparison.reference}"
    return (
        f"{capitalized(label(metric))} {quantity(metric, comparison.model_value)} {verb} "
        f"{'that of ' if oracle else ''}the {name}, "
        f"{quantity(metric, comparison.reference_value)}: the improvement is {improvement}, with a "
        f"95 % interval of {lower} to {upper}"
    )


def _identity(training: TrainingRecord, evaluation: Evaluation, export: ExportRecord) -> Reasons:
    """Yield a reason where the records are of different models, versions or forms."""
    trained = (training.model_name, training.version)
    for step, record in (("evaluation", evaluation), ("export", export)):
        version = (record.model_name, record.version)
        if version != trained:
            text = f"The {step} is of {' '.join(version)}, the training of {' '.join(trained)}."
            yield Severity.PARITY, text
    if evaluation.form != training.form:
        text = f"The evaluation is of the form {evaluation.form}, the training of {training.form}."
        yield Severity.PARITY, text


def _parity(export: ExportRecord) -> Reasons:
    if not export.success:
        yield Severity.PARITY, f"Not exported: {export.reason or 'The export gave no reason.'}"
        return
    missing = [name for name in export.formats if name not in export.parity]
    if missing or not export.parity:
        names = ", ".join(missing) or "any export"
        yield (
            Severity.PARITY,
            f"The predictions of {names} were not compared with the trained model.",
        )
    for name, parity in export.parity.items():
        if not parity.equal:
            text = (
                f"The {name} export predicts differently from the trained model: the largest "
                f"relative difference is {parity.largest_relative_difference:.3g} (limit "
                f"{parity.tolerance:.3g}), and {parity.flipped_decisions} of {parity.rows} "
                "decisions differ (limit 0)."
            )
            yield Severity.PARITY, text
        elif parity.rows == 0:
            yield (
                Severity.PARITY,
                f"The {name} export was compared with the trained model on no row.",
            )


def _limits(training: TrainingRecord, export: ExportRecord) -> Reasons:
    limits = (
        ("model size", export.model_size_mb, MAX_MODEL_MB, "MB", "{:.2f}", ""),
        ("training time", training.training_time_seconds, MAX_TRAINING_SECONDS, "s", "{:.0f}", ""),
        (
            "p99 latency of one inference",
            export.latency_p99_ms,
            MAX_P99_MS,
            "ms",
            "{:.3f}",
            _attempts(export),
        ),
    )
    for name, value, limit, unit, style, detail in limits:
        if value is None or math.isnan(value):
            # Without an export there is nothing to measure; that reason is listed already.
            if export.success:
                yield Severity.LIMIT, f"The {name} was not measured (limit {limit:g} {unit})."
        elif not value < limit:
            text = f"The {name} of {style.format(value)} {unit} is not under {limit:g} {unit}"
            yield Severity.LIMIT, f"{text}{detail}."


def _attempts(export: ExportRecord) -> str:
    """Return every measurement of the latency, with the noise of the machine, as a clause."""
    attempts = export.latency_attempts
    if not attempts:
        return ""
    count = len(attempts)
    measured = ", ".join(f"{each.p99_ms:.3f}" for each in attempts)
    noise = ", ".join(f"{each.bare_p99_ms:.3f}" for each in attempts)
    return (
        f" in {count} {'measurement' if count == 1 else 'measurements'} ({measured} ms); in the "
        f"same moments a loop of the same median time that only reads the clock took {noise} ms"
    )
