"""``dwcp-ml pipeline submit``: the compiled pipeline, sent to Kubeflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.kubeflow.client import KubeflowApi, Order, RunState
    from dwcp_ml.kubeflow.package import Package


@click.command("submit", context_settings={"show_default": True, "auto_envvar_prefix": "DWCP"})
@click.option("--host", required=True, metavar="URL",
              help="Kubeflow Pipelines, as a browser finds it.")  # fmt: skip
@click.option("--namespace", default="", metavar="NAME",
              help="Of the run; empty for a Kubeflow with one user.")  # fmt: skip
@click.option("--experiment", default="dwcp-ml", metavar="NAME", help="Made if it is not there.")
@click.option("--service-account", default="", metavar="NAME",
              help="Of the run's pods; empty for Kubeflow's own.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Bearer token; read for every request, so that it may be renewed.")  # fmt: skip
@click.option("--pipeline-root", default="", metavar="URI",
              help="Where the artifacts go; empty for Kubeflow's own place.")  # fmt: skip
@click.option("--package", default="pipelines/training.yaml", metavar="FILE",
              help="The compiled pipeline.")  # fmt: skip
@click.option("--run-name", default="", metavar="NAME",
              help="Must not be taken; by itself the pipeline's name and the time.")  # fmt: skip
@click.option("--argument", multiple=True, metavar="NAME=VALUE",
              help="Of the pipeline; several times. Lists and objects as JSON.")  # fmt: skip
@click.option("--no-cache", is_flag=True, help="Run every task, whatever ran before.")
@click.option("--wait", is_flag=True, help="Wait for the end, and exit as the gate says.")
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=14_400.0,
              metavar="SECONDS", help="Wait no longer; the run goes on.")  # fmt: skip
@click.option("--poll-seconds", type=click.FloatRange(min=0.1), default=5.0, metavar="SECONDS",
              help="Between two looks.")  # fmt: skip
@shared.as_json
def command(
    host: str,
    token_file: Path | None,
    wait: bool,
    timeout: float,
    poll_seconds: float,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Send the compiled pipeline to Kubeflow, and show where its run is.

    \b
    kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80 &
    dwcp-ml pipeline submit --host http://localhost:8080 --wait \\
      --argument data_path=/data/telemetry.parquet#md5=5d41402abc4b2a76b9719d911017c592 \\
      --argument storage_prefix=s3://models --argument strict=true

    The arguments are those at the head of the compiled pipeline, and are checked before anything
    is sent. With --wait it exits with 0 if the gate said APPROVED, 3 if REJECTED, 6 if the run
    failed or was cancelled, 7 if it had not ended in time; a connection that breaks is tried
    again, and Ctrl-C leaves the run alone. Behind `#md5=` stands what the data must be; then
    tasks that had the same data may come from Kubeflow's cache.

    Each option has an environment variable: DWCP_HOST, DWCP_TOKEN_FILE, and so on.
    """
    from dwcp_ml.kubeflow.client import KubeflowApi
    from dwcp_ml.kubeflow.package import read_package
    from dwcp_ml.kubeflow.wait import Pace, submit

    address = _address(host)
    compiled = read_package(Path(chosen["package"]))
    order = _order(compiled, chosen)
    kubeflow = KubeflowApi(address, token_file)
    pace = Pace(look=poll_seconds, first_retry=min(1.0, poll_seconds))
    run_id = submit(kubeflow, order, _say, renews=token_file is not None, pace=pace)
    result = {
        "run_id": run_id,
        "run_name": order.name,
        "link": f"{address}/#/runs/details/{run_id}",
    }
    click.echo(f"run {order.name}: {result['link']}", err=as_json)
    if not wait:
        if as_json:
            click.echo(json.dumps(result))
        return
    try:
        run = _followed(kubeflow, compiled, run_id, timeout, pace, token_file is not None)
    except KeyboardInterrupt:
        click.echo(f"dwcp-ml: interrupted; the run goes on: {result['link']}", err=True)
        raise SystemExit(130) from None
    _finish(run, kubeflow, compiled, result, as_json)


def _order(compiled: Package, chosen: Mapping[str, Any]) -> Order:
    """Return what is sent.

    Raises
    ------
    UsageError
        If an argument is wrong.
    """
    from dwcp_ml.kubeflow.arguments import parse_arguments, with_digests
    from dwcp_ml.kubeflow.client import Order

    arguments, known = with_digests(parse_arguments(compiled, chosen["argument"]))
    off = chosen["no_cache"]
    if not known and not off:
        _say("the data have no #md5= and can't be read here: they are validated anew.")
    return Order(
        name=chosen["run_name"] or _name(compiled.name),
        experiment=chosen["experiment"],
        namespace=chosen["namespace"],
        pipeline=compiled.with_cache(off=off, data_known=known).body(),
        arguments=arguments,
        pipeline_root=chosen["pipeline_root"],
        service_account=chosen["service_account"],
    )


def _followed(
    kubeflow: KubeflowApi, compiled: Package, run_id: str, timeout: float, pace: Any, renews: bool
) -> RunState:
    """Wait for a run, and show it meanwhile."""
    from dwcp_ml.cli.run_progress import following
    from dwcp_ml.kubeflow.wait import wait

    with following(compiled.titles) as screen:
        return wait(kubeflow, run_id, timeout, screen, renews=renews, pace=pace)


def _finish(
    run: RunState, kubeflow: KubeflowApi, compiled: Package, result: dict[str, str], as_json: bool
) -> None:
    """Print how a run ended, and leave with the code that says so.

    Raises
    ------
    GateRejected
        If the gate said REJECTED.
    RunFailed
        If the run has not succeeded, or does not tell what the gate said.
    """
    from dwcp_ml.contract.errors import GateRejected, RunFailed
    from dwcp_ml.kubeflow.verdict import verdict_of
    from dwcp_ml.kubeflow.wait import failure_of

    succeeded = run.state == "SUCCEEDED"
    verdict = verdict_of(run, kubeflow) if succeeded else None
    if as_json:
        click.echo(json.dumps({**result, "state": run.state, "verdict": verdict}))
    if not succeeded:
        raise RunFailed(failure_of(run, dict(compiled.titles)))
    if verdict is None:
        raise RunFailed(
            f"the run {run.run_id} has ended, and does not tell what the gate said: look at "
            f"{result['link']}."
        )
    if verdict == "REJECTED":
        raise GateRejected(
            f"the gate said REJECTED; the reasons are in the report of its task gate: "
            f"{result['link']}."
        )
    if not as_json:
        click.echo("the gate said APPROVED.")


def _address(host: str) -> str:
    """Return the address of Kubeflow without what a browser shows behind it.

    Raises
    ------
    UsageError
        If it is none.
    """
    from urllib.parse import urlsplit

    from dwcp_ml.contract.errors import UsageError

    try:
        parts = urlsplit(host.strip())
        whole = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.username)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("http", "https"):
        raise UsageError(
            f"--host {host} is no address of Kubeflow Pipelines: write http://host:port, or "
            f"https://host/pipeline."
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _name(pipeline: str) -> str:
    """Return a name for a run: the pipeline's, the time, and something that no other has."""
    import secrets
    from datetime import UTC, datetime

    return f"{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _say(sentence: str) -> None:
    click.echo(f"dwcp-ml: {sentence}", err=True)
