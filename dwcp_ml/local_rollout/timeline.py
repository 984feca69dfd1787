"""The timeline of a rollout on this machine, from its directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from dwcp_ml.files import write_text
from dwcp_ml.local_rollout.driver import End
from dwcp_ml.local_rollout.store import Store
from dwcp_ml.rollout.drift import Drift
from dwcp_ml.rollout.timeline import FORMATS, Reconciliation, Responses, Timeline, events_of


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
    status, history = store.status(), tuple(store.reconciliations())
    request = store.request()
    timeline = Timeline(
        model=request.rollout.model,
        stable=request.rollout.stable,
        candidate=request.rollout.candidate,
        requests_per_second=request.run.requests_per_second,
        reconciliations=history,
        events=events_of(status.events),
        responses=tuple(
            Responses(arm=arm, outcome=kind, requests=count)
            for (arm, kind), count in sorted(responses.items())
        ),
        drift=_drift(history),
        verdicts=status.verdicts,
        candidate_requests=status.exposed_requests,
        reason=status.cause.reason,
        message=status.cause.sentence,
        outcome=outcome,
    )
    for form in FORMATS:
        write_text(store.directory / f"timeline.{form}", timeline.render(form))
    return store.directory / "timeline.html"


def _drift(history: Sequence[Reconciliation]) -> tuple[Drift, ...]:
    """Return the drift at the last reconciliation with traffic at both arms."""
    compared = (
        each for each in reversed(history) if each.drift and 0 < (each.live_percent or 0) < 100
    )
    return next((each.drift for each in compared), ())
