"""``dwcp-ml operator``: the controller of rollouts on a cluster."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from dwcp_ml.operator.policy import Policy

_OF: Final = "allowed_"
"""Options of this prefix are fields of ``Policy``."""


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
@click.option("--allowed-service-accounts", default="", metavar="NAMES",
              help="Service accounts that a predictor may have, separated by commas; without any, "
              "each has the default one of its namespace.")  # fmt: skip
@click.option("--allowed-runtimes", default="dwcp-ml-server,dwcp-ml-server-grpc", metavar="NAMES",
              help="ServingRuntimes that a predictor may name.")  # fmt: skip
@click.option("--allowed-model-formats", default="dwcp-ml-bundle", metavar="NAMES",
              help="Model formats of predictors; by them KServe chooses a runtime.")  # fmt: skip
@click.option("--allowed-priority-classes", default="", metavar="NAMES",
              help="Priority classes that a predictor may have.")  # fmt: skip
@click.option("--allowed-pipeline-accounts", default="dwcp-ml-pipeline,pipeline-runner",
              metavar="NAMES", help="Service accounts that a TrainingRun may have.")  # fmt: skip
@click.option("--allowed-metadata-keys", metavar="KEYS",
              default="contact,cost-center,description,environment,owner,"
              "serving.kserve.io/autoscalerClass,team",
              help="Keys of labels and annotations in a template; example.com/ stands for all keys "
              "below it.")  # fmt: skip
@click.option("--allowed-uri-schemes", default="s3,gs,az,https,pvc", metavar="SCHEMES",
              help="Schemes of bundles and telemetry; oci runs an image.")  # fmt: skip
@click.option("--allowed-uri-hosts", default="*", metavar="HOSTS",
              help="Hosts and buckets of both; *.example.com stands for all below it, * for all "
              "that are not internal to the cluster.")  # fmt: skip
@click.option("--allowed-logger-urls", default="", metavar="URLS",
              help="Receivers of requests and predictions that a predictor may name.")  # fmt: skip
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

    policy = _policy({name: settings.pop(name) for name in list(settings) if name.startswith(_OF)})
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    intervals = Intervals(reconcile_seconds=reconcile_seconds, evidence_seconds=evidence_seconds)
    api = connect(kubeconfig, context)
    run(OperatorSettings(intervals=intervals, policy=policy, **settings), api, api.client)


def _policy(options: dict[str, str]) -> Policy:
    """Return the policy that the options ``--allowed-…`` describe."""
    from pydantic import ValidationError

    from dwcp_ml.operator.policy import Policy

    lists = {
        name.removeprefix(_OF): tuple(filter(None, map(str.strip, text.split(","))))
        for name, text in options.items()
    }
    try:
        return Policy(**lists)
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise click.UsageError(f"--allowed-metadata-keys: {what}.") from error
