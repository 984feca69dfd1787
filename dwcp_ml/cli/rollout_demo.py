"""The demonstration rollouts at the end of a run: one is promoted, one is rolled back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.contract.records import SessionReport
    from dwcp_ml.training_run.session import Session


def show_rollouts(session: Session, session_report: SessionReport, *, quiet: bool = False) -> None:
    """Run the demonstration's rollouts, and print how each ended.

    Raises
    ------
    DwcpError
        If a rollout did not end as expected.
    """
    from dwcp_ml.cli.rollout_progress import watching
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.errors import DwcpError
    from dwcp_ml.local_rollout.demo import SETTINGS, create_store, demo_rollouts, demo_settings
    from dwcp_ml.local_rollout.running import run

    def write(text: str) -> None:
        if not quiet:
            click.echo(text)

    with drawing() as report:
        planned = list(demo_rollouts(session, session_report, report))
    if not planned:
        write("\nNo rollout: the bandwidth predictor was not approved.")
        return
    write(
        f"\nTwo rollouts on this machine, with the settings of a demonstration ({SETTINGS.name})."
    )
    for rollout in planned:
        write(f"\nTrying {rollout.title} …")
        store = create_store(session, rollout)
        with watching(store.request().rollout) as watcher:
            ended = run(store, limit_seconds=demo_settings()["limit_seconds"], watcher=watcher)
        write(
            f"{ended.outcome}: {ended.status.cause.sentence}\n"
            f"The candidate responded to {ended.status.exposed_requests:,} requests. "
            f"Look at {shared.shown(ended.page)}"
        )
        if ended.outcome != rollout.expected:
            raise DwcpError(
                f"{rollout.title}: ended {ended.outcome}, expected {rollout.expected}: "
                f"{ended.status.cause.sentence}"
            )
