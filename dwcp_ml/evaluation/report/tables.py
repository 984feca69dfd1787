"""The tables of a report as rows of text, which Markdown and HTML format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from dwcp_ml.contract.comparison import ReferenceKind, Requirement
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import MODELS, Target
from dwcp_ml.contract.records import DataReport, ExportRecord, ModelReport, SessionReport
from dwcp_ml.evaluation.labels import (
    distinct,
    finding_sentence,
    findings_label,
    label,
    quantity,
    target_label,
)
from dwcp_ml.evaluation.reasons import best_baseline

DERIVED_GROUND_TRUTH = {
    "derived": "The ground truth is derived by a rule, because the data hold no labels.",
    "window": "The ground truth of an incident is a window around its timestamp, because the data "
    "hold no start and end.",
}
"""Warnings about ground truth that was not labelled, by the source of the labels.

A ground truth that is a formula of the model's own inputs (``cost_model``) is a reason to reject.
"""

EMPTY = "–"
"""Text of a cell without a value."""


@dataclass(frozen=True)
class Table:
    """A table of text; every row is as long as ``header``.

    ``caption`` is a sentence that explains the numbers.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


def summary_table(session: SessionReport) -> Table:
    """Return one row for each target of each model.

    The name and the verdict of a model are in its first row.
    """
    rows = []
    for report in session.models.values():
        names = [target.metric for target in report.evaluation.targets] or [""]
        for position, metric in enumerate(names):
            first = position == 0
            cells = numbers_of(report.evaluation, metric)
            rows.append(
                (
                    report.model_name if first else "",
                    f"{label(metric)} {cells[0]}" if metric else EMPTY,
                    *cells[1:],
                    report.verdict if first else "",
                )
            )
    header = ("model", "target", "achieved", "best baseline", "ceiling", "verdict")
    return Table(header, tuple(rows))


def numbers_of(evaluation: Evaluation, metric: str) -> tuple[str, str, str, str]:
    """Return target, achieved, best baseline and ceiling of one metric, as text."""
    target = evaluation.target_of(metric)
    achieved = evaluation.metrics.get(metric)
    baseline = best_baseline(evaluation)
    baseline_value = evaluation.baselines.get(baseline or "", {}).get(metric)
    ceiling = (evaluation.ceiling or {}).get(metric)
    return (
        EMPTY if target is None else target_label(target),
        _achieved(metric, achieved, target),
        EMPTY if baseline_value is None else f"{quantity(metric, baseline_value)} ({baseline})",
        EMPTY if ceiling is None else quantity(metric, ceiling),
    )


def _achieved(metric: str, achieved: float | None, target: Target | None) -> str:
    """Return a metric's value, with enough digits to see on which side of the target it lies."""
    if achieved is None:
        return EMPTY
    return (
        quantity(metric, achieved) if target is None else distinct(metric, achieved, target.value)
    )


def numbers(evaluation: Evaluation) -> Table:
    """Return every metric; those with a target first."""
    names = [target.metric for target in evaluation.targets]
    met = {name: "missed" if name in evaluation.missed_targets else "met" for name in names}
    names += [name for name in evaluation.metrics if name not in names]
    rows = [(label(n), *numbers_of(evaluation, n), met.get(n, EMPTY)) for n in names]
    return Table(
        ("metric", "target", "achieved", "best baseline", "ceiling", ""),
        tuple(rows),
        f"On the {evaluation.test_set_size:,} examples of the test split.",
    )


def exports(export: ExportRecord) -> Table:
    """Return the size of each export and its difference from the trained model."""
    rows = []
    for name in (*export.formats, *(n for n in export.parity if n not in export.formats)):
        parity = export.parity.get(name)
        size = export.sizes_mb.get(name)
        rows.append(
            (
                name,
                EMPTY if size is None else f"{size:.3f} MB",
                EMPTY if parity is None else f"{parity.rows:,}",
                EMPTY if parity is None else f"{parity.largest_relative_difference:.2g}",
                EMPTY if parity is None else f"{parity.flipped_decisions}",
                EMPTY if parity is None else ("equal" if parity.equal else "different"),
            )
        )
    header = ("export", "size", "inputs compared", "largest difference", "different decisions", "")
    return Table(header, tuple(rows), _speed(export))


def _speed(export: ExportRecord) -> str:
    """Return the latency of one inference, and the noise of the machine beside each measurement."""
    if export.latency_p99_ms is None:
        return "The latency was not measured."
    half = EMPTY if export.latency_p50_ms is None else f"{export.latency_p50_ms:.3f} ms"
    sentence = (
        f"One inference takes {half} (median), {export.latency_p99_ms:.3f} ms (99th percentile), "
        "on one thread."
    )
    if not export.latency_attempts:
        return sentence
    pairs = (
        f"{each.p99_ms:.3f} ms ({each.bare_p99_ms:.3f} ms)" for each in export.latency_attempts
    )
    return (
        f"{sentence} The 99th percentile of each measurement, and in brackets the noise of the "
        "machine, that of a loop of the same median time that only reads the clock: "
        f"{', '.join(pairs)}."
    )


def cross_validation(evaluation: Evaluation) -> Table | None:
    """Return the spread of each target's metric over the folds; None without cross-validation."""
    if not evaluation.cross_validation:
        return None
    rows = []
    for method, summary in evaluation.cross_validation.items():
        if not isinstance(summary, Mapping):
            continue
        for metric, values in summary.get("metrics", {}).items():
            spread = (values.get(key) for key in ("mean", "standard_deviation"))
            ends = (values.get(key) for key in ("minimum", "maximum"))
            rows.append(
                (
                    method.replace("_", " "),
                    label(metric),
                    str(summary.get("folds", EMPTY)),
                    *(quantity(metric, value) for value in (*spread, *ends)),
                )
            )
    header = ("method", "metric", "folds", "mean", "std. deviation", "lowest", "highest")
    failures = [
        f"{method}: {text}"
        for method, summary in evaluation.cross_validation.items()
        if isinstance(summary, Mapping)
        for text in summary.get("failures", ())
    ]
    caption = "No fold contains an example of the test split."
    return Table(header, tuple(rows), " ".join([caption, *failures]))


def training_facts(report: ModelReport) -> Table:
    """Return the facts of a training: time, duration, examples, labels, thresholds."""
    training = report.training
    rows = [
        ("version", report.version),
        ("output form", training.form),
        ("trained", moment(report.training_date)),
        ("training time", f"{report.training_time_seconds:.1f} s"),
        ("epochs", str(len(training.epochs)) if training.epochs else EMPTY),
        ("examples", _counts(training.rows)),
        ("labels", training.label_source or EMPTY),
        ("seed, threads", f"{training.seed}, {training.threads}"),
    ]
    rows += [(name.replace("_", " "), f"{value:.6g}") for name, value in training.fitted.items()]
    rows += [("trigger", report.export.trigger)]
    rows += [("bundle digest", report.export.bundle_digest)] if report.export.bundle_digest else []
    return Table(("", ""), tuple(rows))


def moment(text: str) -> str:
    """Return an ISO date and time in words, to the minute.

    >>> moment("2026-01-02T03:04:05+00:00")
    '2026-01-02 03:04 UTC'
    """
    date, separator, clock = text.partition("T")
    if not separator:
        return text or EMPTY
    zone = " UTC" if clock.endswith(("Z", "+00:00")) else ""
    return f"{date} {clock[:5]}{zone}"


def _counts(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in rows.items()) or EMPTY


def data_facts(data: DataReport) -> Table:
    """Return the facts of the telemetry and the incidents."""
    span = (data.first_timestamp or EMPTY, data.last_timestamp or EMPTY)
    rows = [
        ("telemetry", data.path),
        ("source", data.source),
        ("md5, size", f"{data.md5}, {data.size_bytes:,} bytes"),
        ("rows", f"{data.rows:,}, of which {data.rows_quarantined:,} quarantined"),
        *window_facts(data),
        ("links", f"{data.links:,}"),
        ("from, to", f"{span[0]} to {span[1]}"),
        ("cadence", EMPTY if data.cadence_seconds is None else f"{data.cadence_seconds:g} s"),
    ]
    if data.incidents is not None:
        rows.append(("incidents", f"{data.incidents:,} from {data.incidents_path or EMPTY}"))
    return Table(("", ""), tuple(rows))


def window_facts(data: DataReport) -> list[tuple[str, str]]:
    """Return the data window and what is outside it, as names and values; empty without one."""
    if data.data_start is None and data.data_end is None:
        return []
    end = f"{data.data_end}, not included" if data.data_end else "the last row"
    bounds = f"{data.data_start or 'the first row'} to {end}"
    outside = f"{data.rows_outside_window:,} rows"
    if data.files_outside_window:
        outside += f"; {data.files_outside_window:,} files of other dates were not read"
    if data.incidents is not None:
        outside += f"; {data.incidents_outside_window:,} incidents"
    return [("data window", bounds), ("outside the data window", outside)]


def defects(data: DataReport) -> Table | None:
    """Return the defects that validation found, worst first; None for clean data."""
    if not data.defects:
        return None
    order = ["error", "quarantine", "warning"]
    rows = [
        (
            defect.verdict,
            defect.code,
            defect.column or EMPTY,
            f"{defect.count:,}",
            ", ".join(map(str, defect.examples)) or EMPTY,
            defect.message,
        )
        for defect in sorted(data.defects, key=lambda each: order.index(each.verdict))
    ]
    return Table(("verdict", "defect", "column", "count", "rows, such as", "message"), tuple(rows))


def hyperparameters(report: ModelReport) -> str:
    """Return the hyperparameters as indented text."""
    return json.dumps(report.hyperparameters, indent=2, ensure_ascii=False)


def libraries(report: ModelReport) -> str:
    """Return the libraries and their versions in one line."""
    return ", ".join(f"{name} {version}" for name, version in report.training.libraries.items())


def approval(report: ModelReport) -> str:
    """Return why a model is approved; a rejected model has its reasons instead."""
    leak = "the model was not compared with an oracle"
    if any(each.kind is ReferenceKind.ORACLE for each in report.evaluation.comparisons):
        leak = "no metric is better than that of the oracle"
    search = "the data hold no leak"
    if report.evaluation.leaks:
        search = f"leaks were accepted in {', '.join(report.evaluation.accepted_leaks)}"
    sentence = (
        "Every target is met, the model beats every naive baseline and is not worse than a strong "
        f"reference{_champion_clause(report.evaluation)}, {search}, {leak}, every export predicts "
        "as the trained model does, and size, training time and latency are within their limits."
    )
    return f"{sentence} {caution(report.evaluation)}".rstrip()


def _champion_clause(evaluation: Evaluation) -> str:
    """Return what the model is beside the champion, if the run required anything; else empty."""
    words = {Requirement.BETTER: ", is better than", Requirement.NOT_WORSE: " or"}
    for each in evaluation.comparisons:
        if each.kind is ReferenceKind.CHAMPION and each.requirement in words:
            return f"{words[each.requirement]} the champion"
    return ""


def verdict(report: ModelReport) -> str:
    """Return the verdict with the findings in a few words: the first line of a report."""
    return ", ".join(filter(None, (report.verdict, findings_label(report.findings))))


def findings(report: ModelReport) -> tuple[str, ...]:
    """Return each finding as a sentence with its numbers."""
    return tuple(finding_sentence(each) for each in report.findings)


def caution(evaluation: Evaluation) -> str:
    """Return a warning about ground truth that was not labelled; else an empty string."""
    if not evaluation.success:
        return ""
    return DERIVED_GROUND_TRUTH.get(evaluation.label_source or "", "")


def unchecked(session: SessionReport) -> str:
    """Return the checks of the run that were not made, in one line; empty without any."""
    names = [name.replace("_", " ") for name in session.production_readiness.unchecked]
    return f"Not checked: {', '.join(names)}." if names else ""


def headline(session: SessionReport) -> str:
    """Return one sentence about the whole run."""
    return (
        f"{approved(session)}, {session.models_trained} trained, in "
        f"{session.total_training_time_seconds:.0f} s."
    )


def approved(session: SessionReport) -> str:
    """Return in a few words how many models are approved, and how many of them with findings."""
    total = len(session.models)
    words = f"{len(session.approved)} of {total} {'model' if total == 1 else 'models'} approved"
    count = sum(bool(session.models[name].findings) for name in session.approved)
    return f"{words} ({count} with findings)" if count else words


def title(name: str) -> str:
    """Return the purpose of a model in a few words; its name if the model is unknown."""
    known = {
        "bandwidth_predictor": "predicts the next throughput of a link",
        "compression_selector": "selects the compression level",
        "reliability_detector": "detects unreliable nodes",
        "consensus_latency": "detects high consensus latency",
    }
    return known.get(name, name) if name in MODELS else name


def readiness(session: SessionReport) -> Table:
    """Return the checks of the whole run; a check that was not made has its reason."""
    ready = session.production_readiness
    checks: dict[str, bool | None] = {
        "all_targets_met": ready.all_targets_met,
        "integration_tests_passed": ready.integration_tests_passed,
        "go_api_compatibility": ready.go_api_compatibility,
    }
    words = {True: "yes", False: "no", None: "not checked"}

    def row(name: str, passed: bool | None) -> tuple[str, str, str]:
        return name.replace("_", " "), words[passed], ready.unchecked.get(name, "")

    rows = [row(name, passed) for name, passed in checks.items()]
    if ready.ab_test_ready is not None:
        rows.append(("A/B test ready", words[ready.ab_test_ready], ready.ab_test_detail))
    rows += [row(name, None) for name in ready.unchecked if name not in checks]
    return Table(("check", "passed", "detail"), tuple(rows))
