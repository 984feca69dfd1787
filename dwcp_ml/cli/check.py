"""``dwcp-ml check``: compares a live endpoint and the Go client with the contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared

if TYPE_CHECKING:
    from dwcp_ml.contract.checks import ApiChecks


@click.group("check")
def group() -> None:
    """Check a live endpoint and the Go client against the contract."""


@group.command("api")
@click.option(
    "--http", metavar="HOST:PORT", help="Address of a running server; without it, one is started."
)
@click.option("--grpc", metavar="HOST:PORT", help="Its gRPC address.")
@click.option("--model_dir", "--model-dir", type=click.Path(path_type=Path),
              default=Path("runs/latest/models"), show_default=True,
              help="The bundles of the server, or those to serve.")  # fmt: skip
@shared.as_json
def api(http: str | None, grpc: str | None, model_dir: Path, as_json: bool) -> None:
    """Check an endpoint against its contract, and run the Go client's tests on it.

    \b
    Examples:
      dwcp-ml check api                                   start a server for the newest models
      dwcp-ml check api --http localhost:8501 --grpc localhost:8502

    It checks names, shapes, types, units, ranges and error codes over V1, V2 and gRPC; every
    response against the bundle's own graph; the Go integration tests; and the compiled Go package
    against the frozen interface. The exit code is 1 if a check fails. What could not be checked,
    for example without Go on this machine, is listed as unchecked.
    """
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.serving.repository import find_bundles
    from dwcp_ml.training_run.interface_check import check_address, check_bundles
    from dwcp_ml.training_run.progress import ProgressTask

    bundles = find_bundles(model_dir)
    with drawing() as report:
        if http is None:
            checks = check_bundles(bundles, report=report)
        else:
            with ProgressTask("check api", report) as task:
                checks = check_address(model_dir, http, grpc, task)
    if as_json:
        click.echo(checks.to_json(), nl=False)
    else:
        _show(checks)
    if checks.failed:
        raise click.exceptions.Exit(1)


def _show(checks: ApiChecks) -> None:
    from dwcp_ml.cli.terminal import print_table

    rows = [(c.name, "passed" if c.passed else "FAILED", c.detail) for c in checks.checks]
    print_table("Checks", ("check", "outcome", "detail"), rows)
    for name, why in checks.unchecked.items():
        click.echo(f"unchecked: {name}: {why}")
    failures = len(checks.failed)
    click.echo(f"{len(rows)} checks, {f'{failures} FAILED' if failures else 'all passed'}.")
