"""``dwcp-ml rollout status`` and ``timeline``: a rollout on a cluster, from its ModelRollout."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.rollout.verdict import Verdict


@click.command("timeline")
@click.argument("name")
@shared.of_cluster("the rollout")
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Write timeline.json, .md and .html there. [default: print it]")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["md", "json", "html"]),
              help="Only this format. [default: md; with --output all]")  # fmt: skip
def timeline_command(
    name: str,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    output: Path | None,
    form: str | None,
) -> None:
    """Show the history of a rollout on a cluster, under way or ended.

    \b
    Example:
      dwcp-ml rollout timeline bandwidth-predictor --namespace models --output timeline

    It is made of the state that the operator stored in the ModelRollout, and of the Kubernetes
    Events that are left: Kubernetes deletes Events, by default after an hour, and the timeline says
    then what it rests on. Exit code 2: there is no such rollout, or no cluster is configured; 1:
    the API server does not respond, or you may not read the ModelRollout.
    """
    from dwcp_ml.files import write_text
    from dwcp_ml.operator.timeline import cluster_timeline
    from dwcp_ml.rollout.timeline import FORMATS

    api, where = shared.connected(namespace, kubeconfig, context)
    timeline = cluster_timeline(api, where, name, time.time())
    if output is None:
        click.echo(timeline.render(form or "md"), nl=False)
        return
    rendered = {each: timeline.render(each) for each in ([form] if form else FORMATS)}
    for each, text in rendered.items():
        path = output / f"timeline.{each}"
        write_text(path, text)
        click.echo(f"Look at {shared.shown(path)}")


@click.command("status")
@click.argument("name")
@shared.of_cluster("the rollout")
def status_command(
    name: str, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    """Show a rollout on a cluster now, and each test's evidence towards its threshold.

    \b
    Example:
      dwcp-ml rollout status bandwidth-predictor --namespace models

    On a terminal the evidence is a bar, in a pipe a line of text. It is that of the last write of
    the status: with each step, or more often by the operator's --evidence-seconds. Exit codes as of
    dwcp-ml rollout timeline.
    """
    from dwcp_ml.cli.rollout_progress import verdict_table
    from dwcp_ml.cli.terminal import console, plain, visible
    from dwcp_ml.operator.timeline import stored_rollout

    api, where = shared.connected(namespace, kubeconfig, context)
    stored = stored_rollout(api, where, name)
    status = stored.status
    live = "unknown" if status.live_percent is None else f"{status.live_percent} %"
    click.echo(
        f"{name} {stored.candidate.version}: {stored.outcome}, step {status.step or 'none'}, "
        f"weight {live}, target {status.target_percent} %, {status.exposed_requests:,} requests."
    )
    if status.message:
        click.echo(visible(status.message))
    if sys.stdout.isatty():
        console().print(verdict_table(plain(""), status.verdicts))
    else:
        for verdict in status.verdicts:
            click.echo(visible(_line(verdict)))
    if stored.written_at is not None:
        moment = datetime.fromtimestamp(stored.written_at, UTC)
        click.echo(f"Written {moment:%Y-%m-%d %H:%M:%S} UTC.")


def _line(verdict: Verdict) -> str:
    """Return the verdict as text: its evidence and what decides."""
    from dwcp_ml.rollout.verdict import figure

    evidence = ""
    if verdict.evidence is not None and verdict.needed is not None:
        numbers = f"{figure(verdict.evidence)} of {figure(verdict.needed)}"
        evidence = f", evidence {numbers} ({100 * verdict.progress:.0f} %)"
    return f"{verdict.test}: {verdict.outcome.value}{evidence}. {verdict.sentence}"
