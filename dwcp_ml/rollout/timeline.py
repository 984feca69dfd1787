"""The history of a rollout as JSON, Markdown and HTML, on one machine and on a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from pydantic import Field

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.contract.record import Record
from dwcp_ml.rollout.drift import Drift
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.spec import Revision
from dwcp_ml.rollout.status import ENDED, Phase, RolloutEvent
from dwcp_ml.rollout.verdict import Verdict

FORMATS: Final = ("json", "md", "html")

_WIDTH, _HEIGHT = 900, 220


class Reconciliation(Record):
    """One reconciliation."""

    at: float
    phase: Phase
    target_percent: int
    live_percent: int | None
    candidate_requests: int
    verdicts: tuple[Verdict, ...]
    reason: Reason
    message: str
    drift: tuple[Drift, ...] = ()


class TimelineEvent(Record):
    """A change of phase, weight or passed step; or an Event of which the state knows nothing.

    Phase and percent are null for the latter.
    """

    at: float
    phase: Phase | None
    percent: int | None
    reason: str
    message: str
    count: int = Field(default=1, ge=1, description="how often, the first time at ``at``")


class Responses(Record):
    """The responses of one arm, as the clients saw them."""

    arm: str
    outcome: str
    requests: int


class KubernetesEvents(StrEnum):
    """How many changes of a rollout on a cluster still have their Kubernetes Event."""

    ALL = "All"
    SOME = "Some"
    NONE = "None"
    FORBIDDEN = "Forbidden"
    """The reader may not list Events."""


class Timeline(Record):
    """The history of one rollout.

    On a cluster there are no single reconciliations and no responses: ``sources`` says in words
    what it rests on instead, and ``read_at`` when it was read, in epoch seconds.
    """

    model: str
    stable: Revision | None
    candidate: Revision
    requests_per_second: float | None = None
    reconciliations: tuple[Reconciliation, ...] = ()
    events: tuple[TimelineEvent, ...]
    responses: tuple[Responses, ...] = ()
    drift: tuple[Drift, ...] = ()
    verdicts: tuple[Verdict, ...]
    candidate_requests: int
    read_at: float | None = None
    kubernetes_events: KubernetesEvents | None = None
    sources: tuple[str, ...] = ()
    reason: Reason | None
    message: str
    outcome: str

    def render(self, form: str) -> str:
        """Return the timeline in one of ``FORMATS``.

        Raises
        ------
        UsageError
            If the page is asked for, and the package that it needs is not installed.
        """
        return {"json": _json, "md": _markdown, "html": _page}[form](self)


def events_of(events: Iterable[RolloutEvent]) -> tuple[TimelineEvent, ...]:
    """Return the lines of a status."""
    return tuple(
        TimelineEvent(
            at=event.at,
            phase=event.phase,
            percent=event.percent,
            reason=event.cause.reason,
            message=event.cause.sentence,
        )
        for event in events
    )


def _json(timeline: Timeline) -> str:
    record = timeline.model_dump(mode="json", exclude={"reconciliations": {"__all__": {"drift"}}})
    return json.dumps(record, indent=2) + "\n"


def _headline(timeline: Timeline) -> str:
    return (
        f"{timeline.model} {timeline.candidate.version}: {timeline.outcome}. The candidate "
        f"responded to {timeline.candidate_requests:,} requests. {timeline.message}"
    )


def _rows(timeline: Timeline) -> list[tuple[str, str, str, str]]:
    moments = [datetime.fromtimestamp(event.at, UTC) for event in timeline.events]
    day = "%Y-%m-%d " if len({moment.date() for moment in moments}) > 1 else ""
    rows = []
    for moment, event in zip(moments, timeline.events, strict=True):
        why = event.message if event.phase is not None else f"{event.reason}: {event.message}"
        rows.append(
            (
                f"{moment:{day}%H:%M:%S}",
                event.phase.value if event.phase is not None else "",
                f"{event.percent} %" if event.percent is not None else "",
                why if event.count == 1 else f"{why} ({event.count} times)",
            )
        )
    return rows


def _markdown(timeline: Timeline) -> str:
    lines = [
        "# Rollout",
        "",
        _headline(timeline),
        "",
        "| UTC | phase | share | why |",
        "|---|---|---|---|",
    ]
    lines += [
        "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in _rows(timeline)
    ]
    if timeline.responses:
        lines += ["", "| arm | response | requests |", "|---|---|---|"]
    lines += [f"| {each.arm} | {each.outcome} | {each.requests:,} |" for each in timeline.responses]
    if timeline.drift:
        lines += ["", "Drift of the candidate's inputs and predictions (advisory):", ""]
        lines += [f"- {each.sentence}" for each in timeline.drift]
    if timeline.sources:
        lines += ["", *(f"- {sentence}" for sentence in timeline.sources)]
    return "\n".join(lines) + "\n"


_TEMPLATE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Rollout of {{ model }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .3rem .8rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } .Promoted { color: #06742b }
.RolledBack { color: #b3261e } .Held, .Stalled { color: #8a5a00 }
svg { width: 100%; background: #fafafa }
</style>
<h1>{{ model }}: <span class="{{ outcome }}">{{ outcome }}</span></h1>
<p>{{ headline }}</p>
<svg viewBox="-50 -15 {{ width + 70 }} {{ height + 45 }}" role="img"
 aria-label="share of the traffic over time">
{% for share in (0, 25, 50, 75, 100) %}{% set y = height * (1 - share / 100) %}
<line x1="0" x2="{{ width }}" y1="{{ y }}" y2="{{ y }}" stroke="#ddd"/>
<text x="-45" y="{{ y + 5 }}" font-size="13">{{ share }} %</text>
{% endfor %}
<polyline points="{{ points }}" fill="none" stroke="#1f5fbf" stroke-width="2"/>
<text x="0" y="{{ height + 22 }}" font-size="13">0 s</text>
<text x="{{ width - 60 }}" y="{{ height + 22 }}" font-size="13">{{ seconds }} s</text>
</svg>
<table><tr><th>UTC<th>phase<th>share<th>why</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}{% endfor %}</tr>{% endfor %}
</table>
<table><tr><th>test<th>verdict<th>evidence<th>threshold<th>reason</tr>
{% for each in verdicts %}<tr><td>{{ each.test }}<td>{{ each.outcome }}
<td>{{ "%.3g"|format(each.evidence) if each.evidence is not none }}
<td>{{ "%.3g"|format(each.needed) if each.needed is not none }}
<td>{{ each.sentence }}</tr>{% endfor %}
</table>
{% if responses %}<table><tr><th>arm<th>response<th>requests</tr>
{% for each in responses %}<tr><td>{{ each.arm }}<td>{{ each.outcome }}<td>{{ each.requests }}</tr>
{% endfor %}</table>{% endif %}
{% if drift %}
<p>Drift of the candidate's inputs and predictions from the stable's (advisory).</p>
<table><tr><th>input or output<th>drift<th>PSI<th>KS<th>Wasserstein<th>values</tr>
{% for each in drift %}<tr><td>{{ each.name }}<td>{{ each.level }}
{% for value in (each.psi, each.ks, each.wasserstein) %}
<td>{{ "%.3g"|format(value) if value is not none }}{% endfor %}<td>{{ each.samples }}</tr>
{% endfor %}</table>{% endif %}
{% for sentence in sources %}<p>{{ sentence }}</p>
{% endfor %}</html>
"""


def _page(timeline: Timeline) -> str:
    try:
        from jinja2 import Environment
    except ImportError as error:
        raise UsageError(
            "The page needs the package jinja2: install dwcp-ml[train], or ask for md or json.",
            code=ErrorCode.MISSING,
            subject="jinja2",
        ) from error

    weights = _weights(timeline)
    start = weights[0][0] if weights else 0.0
    seconds = max(weights[-1][0] - start, 1.0) if weights else 1.0
    return (
        Environment(autoescape=True)
        .from_string(_TEMPLATE)
        .render(
            **dict(timeline),
            headline=_headline(timeline),
            width=_WIDTH,
            height=_HEIGHT,
            points=_points(weights, start, seconds),
            seconds=round(seconds),
            rows=_rows(timeline),
        )
    )


def _weights(timeline: Timeline) -> list[tuple[float, int | None]]:
    """Return the candidate's weight over time: the live one, or the target of each change."""
    if timeline.reconciliations:
        return [(each.at, each.live_percent) for each in timeline.reconciliations]
    weights = [(each.at, each.percent) for each in timeline.events if each.percent is not None]
    ended = bool(timeline.events) and timeline.events[-1].phase in ENDED
    if weights and timeline.read_at is not None and not ended:
        weights.append((timeline.read_at, weights[-1][1]))
    return [*weights]


def _points(weights: Sequence[tuple[float, int | None]], start: float, seconds: float) -> str:
    """Return the weight as a step line, in the units of the SVG."""
    points: list[str] = []
    last = 0.0
    for at, percent in weights:
        if percent is None:
            continue
        x = _WIDTH * max(at - start, 0.0) / seconds
        points.append(f"{x:.1f},{_HEIGHT * (1 - last / 100):.1f}")
        last = float(percent)
        points.append(f"{x:.1f},{_HEIGHT * (1 - last / 100):.1f}")
    return " ".join(points)
