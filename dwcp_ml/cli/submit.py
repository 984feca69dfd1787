"""``dwcp-ml pipeline submit``: submit the compiled pipeline to Kubeflow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.kubeflow.client import KubeflowApi, RunRequest, RunState
    from dwcp_ml.kubeflow.package import Package


@click.command("submit", context_settings={"show_default": True, "auto_envvar_prefix": "DWCP"})
@click.option("--host", required=True, metavar="URL",
              help="Address of Kubeflow Pipelines, as in a browser.")  # fmt: skip
@click.option("--namespace", default="", metavar="NAME",
              help="Namespace of the run; empty for a single-user Kubeflow.")  # fmt: skip
@click.option("--experiment", default="dwcp-ml", metavar="NAME", help="Created if missing.")
@click.option("--service-account", default="", metavar="NAME",
              help="Service account of the run's pods; empty for Kubeflow's default.")  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Holds the bearer token; read for every request, so it may change.")  # fmt: skip
@click.option("--pipeline-root", default="", metavar="URI",
              help="Where the artifacts are stored; empty for Kubeflow's default.")  # fmt: skip
@click.option("--package", default="pipelines/training.yaml", metavar="FILE",
              help="The compiled pipeline.")  # fmt: skip
@click.option("--run-name", default="", metavar="NAME",
              help="Must be unique; by default the pipeline's name and the time.")  # fmt: skip
@click.option("--argument", multiple=True, metavar="NAME=VALUE",
              help="Argument of the pipeline; repeatable. Lists and objects as JSON.")  # fmt: skip
@click.option(
    "--no-cache", is_flag=True, help="Run every task, even where Kubeflow has a cached result."
)
@click.option(
    "--wait", is_flag=True, help="Wait for the end, and exit with the code of the gate's verdict."
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=14_400.0,
              metavar="SECONDS", help="Stop waiting after this time; the run goes on.")  # fmt: skip
@click.option("--poll-seconds", type=click.FloatRange(min=0.1), default=5.0, metavar="SECONDS",
              help="Time between two polls of the run.")  # fmt: skip
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
    """Submit the compiled pipeline to Kubeflow, and print the link of its run.

    \b
    kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80 &
    dwcp-ml pipeline submit --host http://localhost:8080 --wait \\
      --argument data_path=/data/telemetry.parquet#md5=5d41402abc4b2a76b9719d911017c592 \\
      --argument storage_prefix=s3://models --argument strict=true

    The arguments are listed at the head of the compiled pipeline, and are checked before anything
    is sent. With --wait the exit code is 0 if the gate said APPROVED, 3 if REJECTED, 6 if the run
    failed or was cancelled, 7 if it did not end in time. Lost connections are retried; Ctrl-C
    does not stop the run. `#md5=` states the digest of the data, so that Kubeflow can take results
    for the same data from its cache.

    Each option has an environment variable: DWCP_HOST, DWCP_TOKEN_FILE, and so on.
    """
    from dwcp_ml.kubeflow.client import KubeflowApi
    from dwcp_ml.kubeflow.package import read_package
    from dwcp_ml.kubeflow.wait import RetryPolicy, submit

    address = _address(host)
    compiled = read_package(Path(chosen["package"]))
    request = _request(compiled, chosen)
    kubeflow = KubeflowApi(address, token_file)
    policy = RetryPolicy(poll=poll_seconds, first_retry=min(1.0, poll_seconds))
    run_id = submit(kubeflow, request, _say, renews=token_file is not None, policy=policy)
    result = {
        "run_id": run_id,
        "run_name": request.name,
        "link": f"{address}/#/runs/details/{run_id}",
    }
    click.echo(f"run {request.name}: {result['link']}", err=as_json)
    if not wait:
        if as_json:
            click.echo(json.dumps(result))
        return
    try:
        run = _wait(kubeflow, compiled, run_id, timeout, policy, token_file is not None)
    except KeyboardInterrupt:
        click.echo(f"dwcp-ml: Interrupted; the run goes on: {result['link']}", err=True)
        raise SystemExit(130) from None
    _finish(run, kubeflow, compiled, result, as_json)


def _request(compiled: Package, chosen: Mapping[str, Any]) -> RunRequest:
    """Return the run to submit.

    Raises
    ------
    UsageError
        If an argument is wrong.
    """
    import secrets

    from dwcp_ml.kubeflow.arguments import parse_arguments, with_digests
    from dwcp_ml.kubeflow.client import RunRequest

    arguments, known = with_digests(parse_arguments(compiled, chosen["argument"]))
    off = chosen["no_cache"]
    if not known and not off:
        _say("The data have no #md5= and can't be read here: they are validated again.")
    token = secrets.token_hex(8)
    return RunRequest(
        name=chosen["run_name"] or _name(compiled.name),
        experiment=chosen["experiment"],
        namespace=chosen["namespace"],
        pipeline=compiled.with_cache(off=off, data_known=known).body(),
        arguments=arguments,
        pipeline_root=chosen["pipeline_root"],
        service_account=chosen["service_account"],
        submission=f"Submitted by `dwcp-ml pipeline submit` ({token}).",
    )


def _wait(
    kubeflow: KubeflowApi, compiled: Package, run_id: str, timeout: float, policy: Any, renews: bool
) -> RunState:
    """Wait for a run, and show its progress."""
    from dwcp_ml.cli.run_progress import following
    from dwcp_ml.kubeflow.wait import wait

    with following(compiled.titles) as screen:
        return wait(kubeflow, run_id, timeout, screen, renews=renews, policy=policy)


def _finish(
    run: RunState, kubeflow: KubeflowApi, compiled: Package, result: dict[str, str], as_json: bool
) -> None:
    """Print how a run ended, and leave with the code that says so.

    Raises
    ------
    GateRejected
        If the gate said REJECTED.
    RunFailed
        If the run has not succeeded, or does not show the gate's verdict.
    """
    from dwcp_ml.contract.errors import ErrorCode, GateRejected, RunFailed
    from dwcp_ml.kubeflow.verdict import verdict_of
    from dwcp_ml.kubeflow.wait import failure_of

    succeeded = run.state == "SUCCEEDED"
    verdict = verdict_of(run, kubeflow) if succeeded else None
    if as_json:
        click.echo(json.dumps({**result, "state": run.state, "verdict": verdict}))
    if not succeeded:
        raise RunFailed(
            failure_of(run, dict(compiled.titles)), code=ErrorCode.STATUS, subject=run.state
        )
    if verdict is None:
        raise RunFailed(
            f"The run {run.run_id} has ended, but does not show the gate's verdict: see "
            f"{result['link']}.",
            code=ErrorCode.MISSING,
            subject="verdict",
        )
    if verdict == "REJECTED":
        raise GateRejected(
            f"The gate said REJECTED; the reasons are in the report of its task gate: "
            f"{result['link']}."
        )
    if not as_json:
        click.echo("The gate said APPROVED.")


def _address(host: str) -> str:
    """Return the address of Kubeflow without the fragment that a browser shows.

    Raises
    ------
    UsageError
        If it is not an address.
    """
    from urllib.parse import urlsplit

    from dwcp_ml.contract.errors import ErrorCode, UsageError

    try:
        parts = urlsplit(host.strip())
        whole = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.username)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("http", "https"):
        raise UsageError(
            f"--host {host} is not an address of Kubeflow Pipelines: write http://host:port, or "
            f"https://host/pipeline.",
            code=ErrorCode.INVALID_ADDRESS,
            subject=host,
        )
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _name(pipeline: str) -> str:
    """Return a unique name for a run: the pipeline's name, the time, and a random suffix."""
    import secrets
    from datetime import UTC, datetime

    return f"{pipeline}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def _say(sentence: str) -> None:
    click.echo(f"dwcp-ml: {sentence}", err=True)
