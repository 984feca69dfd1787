"""``dwcp-ml rollout timeline``: a rollout on a cluster, from its ModelRollout."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.kube.api import Api

F = TypeVar("F", bound=Callable[..., Any])


def _of_cluster(command: F) -> F:
    """Add the argument and the options that name a rollout on a cluster."""
    for option in (
        click.option("--context", metavar="NAME", help="Context of the kubeconfig."),
        click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE",
                     help="The cluster. [default: the one this runs in, else kubectl's]"),
        click.option("--namespace", "-n", metavar="NAME",
                     help="Namespace of the rollout. [default: the context's]"),
        click.argument("name"),
    ):  # fmt: skip
        command = option(command)
    return command


def _connected(
    namespace: str | None, kubeconfig: Path | None, context: str | None
) -> tuple[Api, str]:
    """Return the API server, and the namespace."""
    from dwcp_ml.kube.client import connect, namespace_of

    return connect(kubeconfig, context), namespace or namespace_of(kubeconfig, context)


@click.command("timeline")
@_of_cluster
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

    api, where = _connected(namespace, kubeconfig, context)
    timeline = cluster_timeline(api, where, name, time.time())
    if output is None:
        click.echo(timeline.render(form or "md"), nl=False)
        return
    rendered = {each: timeline.render(each) for each in ([form] if form else FORMATS)}
    for each, text in rendered.items():
        path = output / f"timeline.{each}"
        write_text(path, text)
        click.echo(f"Look at {shared.shown(path)}")
