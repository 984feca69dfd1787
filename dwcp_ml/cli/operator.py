"""``dwcp-ml operator``: rolls out on a cluster."""

from __future__ import annotations

import logging
from pathlib import Path

import click


@click.group("operator")
def group() -> None:
    """Roll candidates out on a cluster, as ModelRollouts ask for it."""


@group.command("run", context_settings={"show_default": True, "auto_envvar_prefix": "DWCP"})
@click.option("--key-file", "key_files", multiple=True, required=True, metavar="FILE",
              type=click.Path(path_type=Path),
              help="Secret of at least 32 bytes that seals what is remembered; the first seals, "
              "each is believed.")  # fmt: skip
@click.option("--namespace", default="", help="Watch this one only; empty for all.")
@click.option("--lease-namespace", default="dwcp-ml", help="Where the Lease of the leader is.")
@click.option("--lease-name", default="dwcp-ml-operator")
@click.option("--identity", default="", help="Who this process is; the pod's name by itself.")
@click.option("--prometheus", default="", metavar="URL",
              help="Take the servers' counters from here, not from the pods.")  # fmt: skip
@click.option("--kubeflow", default="", metavar="URL", help="Kubeflow Pipelines, for TrainingRuns.")
@click.option("--kubeflow-token-file", type=click.Path(path_type=Path), metavar="FILE")
@click.option("--pipelines", type=click.Path(path_type=Path), default=Path("pipelines"),
              metavar="DIR", help="The compiled pipelines.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8080,
              help="/healthz, /readyz and /metrics.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 64), default=4)
@click.option("--look-seconds", type=click.FloatRange(1), default=10.0,
              help="Between two looks at a rollout.")  # fmt: skip
@click.option("--evidence-seconds", type=click.FloatRange(0), default=0.0,
              help="Store evidence so often; 0 only with a step.")  # fmt: skip
@click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE",
              help="The cluster; by itself the one this runs in.")  # fmt: skip
@click.option("--context", metavar="NAME", help="Of the kubeconfig.")
def run_command(
    key_files: tuple[Path, ...],
    namespace: str,
    lease_namespace: str,
    lease_name: str,
    identity: str,
    prometheus: str,
    kubeflow: str,
    kubeflow_token_file: Path | None,
    pipelines: Path,
    port: int,
    workers: int,
    look_seconds: float,
    evidence_seconds: float,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    """Watch ModelRollouts and TrainingRuns, and do what they ask for.

    \b
    Example, from a laptop:
      head -c 32 /dev/urandom > key
      dwcp-ml operator run --key-file key --lease-namespace default --kubeconfig ~/.kube/config

    Several may run: one leads, the others wait. It ends at SIGTERM, and gives its Lease back.
    """
    from dwcp_ml.kube.client import connect
    from dwcp_ml.operator.app import run
    from dwcp_ml.operator.settings import OperatorSettings, Pace

    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells of every event that it saw
    settings = OperatorSettings(
        key_files=key_files,
        namespace=namespace,
        lease_namespace=lease_namespace,
        lease_name=lease_name,
        identity=identity,
        prometheus=prometheus,
        kubeflow=kubeflow,
        kubeflow_token_file=kubeflow_token_file,
        pipelines=pipelines,
        port=port,
        workers=workers,
        pace=Pace(look_seconds=look_seconds, evidence_seconds=evidence_seconds),
    )
    api = connect(kubeconfig, context)
    run(settings, api, api.configuration)
