"""The history of a rollout as JSON, Markdown and HTML."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment

from dwcp_ml.files import write_text
from dwcp_ml.local_rollout.driver import End
from dwcp_ml.local_rollout.store import Reconciliation, Store
from dwcp_ml.rollout.drift import Drift
from dwcp_ml.rollout.status import RolloutStatus

NAMES: Final = ("timeline.json", "timeline.md", "timeline.html")

_WIDTH, _HEIGHT = 900, 220


def write_timeline(store: Store, outcome: End, responses: Counter[tuple[str, str]]) -> Path:
    """Write ``timeline.json``, ``.md`` and ``.html`` into the rollout's directory.

    Parameters
    ----------
    responses
        (arm, class of the status) -> requests, as the clients saw them.

    Returns
    -------
    Path
        The page.
    """
    status, history = store.status(), list(store.reconciliations())
    request = store.request()
    record: dict[str, Any] = {
        "model": request.rollout.model,
        "stable": request.rollout.stable and request.rollout.stable.model_dump(),
        "candidate": request.rollout.candidate.model_dump(),
        "requests_per_second": request.run.requests_per_second,
        "reconciliations": [each.model_dump(mode="json", exclude={"drift"}) for each in history],
        "events": [
            event.model_dump(mode="json", exclude={"cause"})
            | {"reason": event.cause.reason, "message": event.cause.sentence}
            for event in status.events
        ],
        "responses": [
            {"arm": arm, "outcome": kind, "requests": count}
            for (arm, kind), count in sorted(responses.items())
        ],
        "drift": [each.model_dump(mode="json") for each in _drift(history)],
        "candidate_requests": status.exposed_requests,
        "reason": status.cause.reason,
        "message": status.cause.sentence,
        "outcome": outcome,
    }
    write_text(store.directory / NAMES[0], json.dumps(record, indent=2) + "\n")
    write_text(store.directory / NAMES[1], _markdown(record, status))
    write_text(store.directory / NAMES[2], _page(record, status, history))
    return store.directory / NAMES[2]


def _drift(history: Sequence[Reconciliation]) -> tuple[Drift, ...]:
    """Return the drift at the last reconciliation with traffic at both arms."""
    compared = (
        each for each in reversed(history) if each.drift and 0 < (each.live_percent or 0) < 100
    )
    return next((each.drift for each in compared), ())


def _headline(record: dict[str, Any]) -> str:
    return (
        f"{record['model']} {record['candidate']['version']}: {record['outcome']}. "
        f"The candidate responded to {record['candidate_requests']:,} requests. {record['message']}"
    )


def _rows(status: RolloutStatus) -> list[tuple[str, str, str, str]]:
    return [
        (
            f"{datetime.fromtimestamp(event.at, UTC):%H:%M:%S}",
            event.phase.value,
            f"{event.percent} %",
            event.cause.sentence,
        )
        for event in status.events
    ]


def _markdown(record: dict[str, Any], status: RolloutStatus) -> str:
    lines = [
        "# Rollout",
        "",
        _headline(record),
        "",
        "| UTC | phase | share | why |",
        "|---|---|---|---|",
    ]
    lines += [
        "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in _rows(status)
    ]
    lines += ["", "| arm | response | requests |", "|---|---|---|"]
    lines += [
        f"| {each['arm']} | {each['outcome']} | {each['requests']:,} |"
        for each in record["responses"]
    ]
    if record["drift"]:
        lines += ["", "Drift of the candidate's inputs and predictions (advisory):", ""]
        lines += [f"- {each['sentence']}" for each in record["drift"]]
    return "\n".join(lines) + "\n"


_TEMPLATE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Rollout of {{ model }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .3rem .8rem; text-align: left;
border-bottom: 1px solid #ddd; vertical-align: top } .Promoted { color: #06742b }
.RolledBack { color: #b3261e } .Held { color: #8a5a00 } svg { width: 100%; background: #fafafa }
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
<table><tr><th>arm<th>response<th>requests</tr>
{% for each in responses %}<tr><td>{{ each.arm }}<td>{{ each.outcome }}<td>{{ each.requests }}</tr>
{% endfor %}</table>
{% if drift %}
<p>Drift of the candidate's inputs and predictions from the stable's (advisory).</p>
<table><tr><th>input or output<th>drift<th>PSI<th>KS<th>Wasserstein<th>values</tr>
{% for each in drift %}<tr><td>{{ each.name }}<td>{{ each.level }}
{% for value in (each.psi, each.ks, each.wasserstein) %}
<td>{{ "%.3g"|format(value) if value is not none }}{% endfor %}<td>{{ each.samples }}</tr>
{% endfor %}</table>{% endif %}</html>
"""


def _page(record: dict[str, Any], status: RolloutStatus, history: Sequence[Reconciliation]) -> str:
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    start = history[0].at if history else 0.0
    seconds = max(history[-1].at - start, 1.0) if history else 1.0
    return template.render(
        **record,
        headline=_headline(record),
        width=_WIDTH,
        height=_HEIGHT,
        points=_points(history, start, seconds),
        seconds=round(seconds),
        rows=_rows(status),
        verdicts=status.verdicts,
    )


def _points(history: Sequence[Reconciliation], start: float, seconds: float) -> str:
    """Return the live share as a step line, in the units of the SVG."""
    points: list[str] = []
    last = 0.0
    for each in history:
        if each.live_percent is None:
            continue
        x = _WIDTH * max(each.at - start, 0.0) / seconds
        points.append(f"{x:.1f},{_HEIGHT * (1 - last / 100):.1f}")
        last = float(each.live_percent)
        points.append(f"{x:.1f},{_HEIGHT * (1 - last / 100):.1f}")
    return " ".join(points)
