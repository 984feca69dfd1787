"""The reports as self-contained HTML pages: no scripts, no resources from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.records import ModelReport, SessionReport
from dwcp_ml.evaluation.labels import is_error, label
from dwcp_ml.evaluation.plot_data import PlotData
from dwcp_ml.evaluation.reasons import best_baseline
from dwcp_ml.evaluation.report import tables
from dwcp_ml.evaluation.report.comparisons import champion, comparisons, references
from dwcp_ml.evaluation.report.data_use import data_use, data_warnings
from dwcp_ml.evaluation.report.diagnostics import diagnostics
from dwcp_ml.evaluation.report.leaks import leaks
from dwcp_ml.evaluation.report.markdown import model_link

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Mark:
    """One mark on the scale of a target, ``place`` percent from its left end, which is worse."""

    kind: str
    place: float


@dataclass(frozen=True)
class Gauge:
    """One target: its numbers as text, and their places on a scale."""

    name: str
    target: str
    achieved: str
    baseline: str
    ceiling: str
    met: bool
    marks: tuple[Mark, ...]


def model_html(report: ModelReport, plot_data: PlotData | None = None) -> str:
    """Return the page of one model; without plot data its only plot is the learning curve."""
    from dwcp_ml.evaluation.report.plots import plots_of

    return _render(
        "model.html",
        report=report,
        purpose=tables.title(report.model_name),
        approval=tables.approval(report),
        trained=tables.moment(report.training_date),
        data_use=data_use([report]),
        gauges=gauges(report.evaluation),
        plots=plots_of(report, plot_data),
        numbers=tables.numbers(report.evaluation),
        verdict=tables.verdict(report),
        findings=tables.findings(report),
        comparisons=comparisons(report.evaluation),
        references=references(report.evaluation),
        champion=champion(report.evaluation),
        diagnostics=diagnostics(report.evaluation),
        exports=tables.exports(report.export),
        folds=tables.cross_validation(report.evaluation),
        training=tables.training_facts(report),
        data=tables.data_facts(report.data),
        defects=tables.defects(report.data),
        leaks=leaks({report.model_name: report.evaluation.leaks}),
        hyperparameters=tables.hyperparameters(report),
        libraries=tables.libraries(report),
    )


def session_html(session: SessionReport) -> str:
    """Return the page of one run, with links to the pages of its models."""
    cards = [
        {
            "report": report,
            "purpose": tables.title(report.model_name),
            "gauges": gauges(report.evaluation),
            "caution": tables.caution(report.evaluation),
            "findings": tables.findings(report),
            "link": model_link(report, REPORT_NAMES[2]),
        }
        for report in session.models.values()
    ]
    return _render(
        "session.html",
        session=session,
        verdict=session.production_readiness.deployment_recommendation,
        headline=tables.headline(session),
        unchecked=tables.unchecked(session),
        data_use=data_use(session.models.values()),
        data_warnings=data_warnings(session.models.values()),
        cards=cards,
        summary=tables.summary_table(session),
        readiness=tables.readiness(session),
        data=tables.data_facts(session.data),
        defects=tables.defects(session.data),
    )


def gauges(evaluation: Evaluation) -> tuple[Gauge, ...]:
    """Return one gauge for each target, in their order."""
    return tuple(
        Gauge(
            label(metric),
            *tables.numbers_of(evaluation, metric),
            met=evaluation.success and metric not in evaluation.missed_targets,
            marks=_marks(evaluation, metric),
        )
        for metric in (target.metric for target in evaluation.targets)
    )


def _marks(evaluation: Evaluation, metric: str) -> tuple[Mark, ...]:
    """Return the marks of target, baseline, ceiling and model on a scale; its right end is best."""
    values: dict[str, float | None] = {
        "baseline": evaluation.baselines.get(best_baseline(evaluation) or "", {}).get(metric),
        "ceiling": (evaluation.ceiling or {}).get(metric),
    }
    target = evaluation.target_of(metric)
    values["target"] = None if target is None else target.value
    # The model is last, so that it is drawn above a mark at the same place.
    values["model"] = evaluation.metrics.get(metric)
    known = {kind: value for kind, value in values.items() if value is not None}
    if "model" not in known or len(known) < 2:
        return ()
    sign = -1.0 if is_error(metric) else 1.0
    low, high = (end(sign * value for value in known.values()) for end in (min, max))
    width = (high - low) or 1.0
    return tuple(
        Mark(kind, round(6.0 + 88.0 * (sign * value - low) / width, 2))
        for kind, value in known.items()
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("dwcp_ml.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)
