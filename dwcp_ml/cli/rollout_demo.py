"""The end of a run that a newcomer watches: a good candidate goes live, a broken one is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.contract.records import SessionReport
    from dwcp_ml.training_run.session import Session


def show_rollouts(session: Session, answer: SessionReport, *, quiet: bool = False) -> None:
    """Run the demonstration's rollouts, and print what each came to.

    Parameters
    ----------
    quiet
        Print nothing on standard output: it is for a machine.

    Raises
    ------
    DwcpError
        If a rollout ended otherwise than it should.
    """
    from dwcp_ml.cli.rollout_progress import watching
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.errors import DwcpError
    from dwcp_ml.local_rollout.demo import SETTINGS, begin, demo_settings, showings
    from dwcp_ml.local_rollout.running import run

    def say(text: str) -> None:
        if not quiet:
            click.echo(text)

    with drawing() as report:
        planned = list(showings(session, answer, report))
    if not planned:
        say("\nNo rollout: the bandwidth predictor was not approved.")
        return
    say(f"\nTwo rollouts on this machine, with the settings of a demonstration ({SETTINGS.name}).")
    for one in planned:
        say(f"\nTrying {one.title} …")
        store = begin(session, one)
        with watching(store.request().rollout) as watcher:
            ended = run(store, limit_seconds=demo_settings()["limit_seconds"], watcher=watcher)
        say(
            f"{ended.outcome}: {ended.status.cause.sentence}\n"
            f"The candidate answered {ended.status.exposed_requests:,} requests. "
            f"Look at {shared.shown(ended.page)}"
        )
        if ended.outcome != one.expected:
            raise DwcpError(
                f"{one.title}: it should have ended {one.expected}, and it ended {ended.outcome}: "
                f"{ended.status.cause.sentence}"
            )
