"""``dwcp-ml operator``: the controller of rollouts on a cluster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click


@click.group("operator")
def group() -> None:
    """Roll candidates out on a cluster, as ModelRollouts specify."""


@group.command("run", context_settings={"show_default": True, "auto_envvar_prefix": "DWCP"})
@click.option("--namespace", default="", help="The one namespace to watch; empty for all.")
@click.option("--lease-namespace", default="dwcp-ml", help="Namespace of the leader's Lease.")
@click.option("--lease-name", default="dwcp-ml-operator")
@click.option(
    "--identity",
    default="",
    help="Identity in the Lease; by default the pod's name.",
)
@click.option("--prometheus", default="", metavar="URL",
              help="Source of request counters; by default the pods' metrics.")  # fmt: skip
@click.option("--kubeflow", default="", metavar="URL", help="Kubeflow Pipelines, for TrainingRuns.")
@click.option("--kubeflow-token-file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--pipelines", type=click.Path(path_type=Path), default=Path("pipelines"),
              metavar="DIR", help="The compiled pipelines.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080,
              help="/healthz, /readyz and /metrics.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=4)
@click.option("--reconcile-interval", "reconcile_seconds", type=click.FloatRange(1), default=10.0,
              metavar="SECONDS",
              help="Time between two reconciliations of a rollout.")  # fmt: skip
@click.option("--evidence-seconds", type=click.FloatRange(0), default=0.0,
              metavar="SECONDS",
              help="Interval of storing evidence; 0: with a step only.")  # fmt: skip
@click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE",
              help="The cluster; by default the one this runs in.")  # fmt: skip
@click.option("--context", metavar="NAME", help="Context of the kubeconfig.")
def run_command(
    reconcile_seconds: float,
    evidence_seconds: float,
    kubeconfig: Path | None,
    context: str | None,
    **settings: Any,
) -> None:
    """Reconcile ModelRollouts and TrainingRuns.

    \b
    Example, from a laptop:
      dwcp-ml operator run --lease-namespace default --kubeconfig ~/.kube/config

    Several processes may run: one leads, the others stand by. SIGTERM ends it and releases the
    Lease.
    """
    from dwcp_ml.kube.client import connect
    from dwcp_ml.operator.app import run
    from dwcp_ml.operator.settings import Intervals, OperatorSettings

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    intervals = Intervals(reconcile_seconds=reconcile_seconds, evidence_seconds=evidence_seconds)
    api = connect(kubeconfig, context)
    run(OperatorSettings(intervals=intervals, **settings), api, api.client)
