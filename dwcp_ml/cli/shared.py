"""Options that several commands share, and how a run ends on the screen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dwcp_ml.contract.records import SessionReport
    from dwcp_ml.training_run.options import RunOptions
    from dwcp_ml.training_run.session import Session

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
simulator = click.option(
    "--set", "simulator", multiple=True, metavar="KEY=VALUE",
    help="A setting of the simulator; dwcp-ml data simulate --show lists them.",
)  # fmt: skip


def print_result(session: Session, answer: SessionReport, as_json_: bool) -> None:
    """Print how a run ended, for a person or a machine."""
    if as_json_:
        click.echo(answer.to_json(), nl=False)
    else:
        print_answer(answer, session.directory)


def finish(session: Session, answer: SessionReport, as_json_: bool, printed: bool = False) -> None:
    """Print how a run ended, unless it is printed, and leave with the gate's exit code.

    Raises
    ------
    GateRejected
        If the gate said REJECTED.
    """
    from dwcp_ml.contract.errors import GateRejected

    if not printed:
        print_result(session, answer, as_json_)
    if answer.production_readiness.deployment_recommendation == "REJECTED":
        rejected = [name for name, model in answer.models.items() if model.verdict == "REJECTED"]
        raise GateRejected(
            f"the gate said REJECTED for {', '.join(rejected)}; "
            f"the reasons are in {shown(session.directory)}/report.md."
        )


def print_answer(answer: SessionReport, directory: Path) -> None:
    """Print the table that a person reads in ten seconds, and where to look next."""
    from dwcp_ml.cli.terminal import print_table
    from dwcp_ml.evaluation import summary_table

    ready = answer.production_readiness
    header, *rows = summary_table(answer)
    print_table(
        f"{ready.deployment_recommendation}: {answer.models_passed} of {len(answer.models)} models "
        f"approved, trained in {answer.total_training_time_seconds:.0f} s",
        header,
        rows,
    )
    for model in answer.models.values():
        if model.reasons:
            click.echo(f"{model.model_name}: {' '.join(model.reasons)}")
    for name, why in ready.unchecked.items():
        click.echo(f"unchecked: {name}: {why}")
    place = shown(directory)
    click.echo(f"\nLook at   {place}/report.html")
    click.echo(f"Bundles   {place}/models/<model>/<version>/")
    if any(model.deployment_ready for model in answer.models.values()):
        click.echo(f"Deploy    {place}/manifests/<model>/")


def key_values(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return the settings of the simulator from ``KEY=VALUE`` words.

    Raises
    ------
    UsageError
        If a word has no ``=``.
    """
    import yaml

    from dwcp_ml.contract.errors import UsageError

    values = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"--set {pair} is not KEY=VALUE.")
        values[key] = yaml.safe_load(value)
    return values


def shown(path: Path) -> str:
    """Return a path as a person would type it: relative to where they are, if it is below."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def run_and_finish(
    root: str, options: RunOptions, resume: str | None, parallel: int, as_json_: bool
) -> None:
    """Run the orchestrator on a new or an interrupted session, and end as the gate says."""
    import shutil

    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.errors import DataRefused, UsageError
    from dwcp_ml.training_run.orchestrator import check_settings, run_session
    from dwcp_ml.training_run.session import new_session, open_session

    check_settings(options)
    session = open_session(Path(resume)) if resume else new_session(Path(root), options)
    chosen = session.options() if resume else options
    try:
        with drawing() as report:
            answer = run_session(session, chosen, parallel=parallel, report=report)
    except (DataRefused, UsageError):
        if not resume:
            shutil.rmtree(session.directory, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        click.echo(
            f"dwcp-ml: interrupted; to go on: dwcp-ml train --resume {shown(session.directory)}",
            err=True,
        )
        raise SystemExit(130) from None
    finish(session, answer, as_json_)
