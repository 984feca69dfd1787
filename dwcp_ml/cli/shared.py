"""Options of several commands, and the printed result of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dwcp_ml.contract.records import SessionReport
    from dwcp_ml.kube.api import Api
    from dwcp_ml.training_run.model_file import ModelFile
    from dwcp_ml.training_run.options import RunOptions
    from dwcp_ml.training_run.session import Session

F = TypeVar("F", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
simulator = click.option(
    "--set", "simulator", multiple=True, metavar="KEY=VALUE",
    help="Setting of the simulator; dwcp-ml data simulate --show lists them.",
)  # fmt: skip
gap_factor = click.option(
    "--gap-factor", type=click.FloatRange(1, 1000), default=2.5, show_default=True,
    help="A step longer than this many usual ones of its link or node is a gap.",
)  # fmt: skip
models_of_run = click.option(
    "--models", metavar="LIST", help="Models, comma-separated. [default: all of the run]"
)


def output_dir(help_text: str, default: str = "runs") -> Callable[[F], F]:
    """Return the option ``--output-dir``."""
    return click.option(
        "--output-dir", default=default, show_default=True, metavar="DIR", help=help_text
    )


def of_cluster(subject: str) -> Callable[[F], F]:
    """Return the options that name a cluster, and the namespace of ``subject`` on it."""

    def add(command: F) -> F:
        for option in (
            click.option("--context", metavar="NAME", help="Context of the kubeconfig."),
            click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE",
                         help="The cluster. [default: the one this runs in, else kubectl's]"),
            click.option("--namespace", "-n", metavar="NAME",
                         help=f"Namespace of {subject}. [default: the context's]"),
        ):  # fmt: skip
            command = option(command)
        return command

    return add


def connected(
    namespace: str | None, kubeconfig: Path | None, context: str | None, **options: Any
) -> tuple[Api, str]:
    """Return the API server, and the namespace; ``options`` are those of ``connect``."""
    from dwcp_ml.kube.client import connect, namespace_of

    where = namespace or namespace_of(kubeconfig, context)
    return connect(kubeconfig, context, **options), where


def run_option(help_text: str) -> Callable[[F], F]:
    """Return the option ``--run``, which names a run by its directory."""
    return click.option(
        "--run", default="runs/latest", show_default=True, metavar="RUN", help=help_text
    )


def retention(keep: str, min_age: str) -> Callable[[F], F]:
    """Return the options of a command that removes what is outdated, if it is told to."""

    def add(command: F) -> F:
        for option in (
            click.option(
                "--min-age",
                type=click.FloatRange(0.0),
                default=24.0,
                show_default=True,
                metavar="HOURS",
                help=min_age,
            ),
            click.option(
                "--delete", is_flag=True, help="Remove the outdated ones. [default: only list them]"
            ),
            click.option("--keep", type=click.IntRange(1), required=True, metavar="N", help=keep),
        ):
            command = option(command)
        return command

    return add


def print_removed(count: str, deleted: bool) -> None:
    """Print how much was removed, or would be."""
    click.echo(f"{count} were removed." if deleted else f"{count} would be removed by --delete.")


def print_json(values: Mapping[str, Any]) -> None:
    """Print an object as JSON; its values are plain, or records."""
    import json

    click.echo(json.dumps(values, indent=2, default=lambda each: each.model_dump(mode="json")))


def print_result(session: Session, session_report: SessionReport, as_json_: bool) -> None:
    """Print the result of a run, as a table or as JSON."""
    if as_json_:
        click.echo(session_report.to_json(), nl=False)
    else:
        print_summary(session_report, session.directory)


def finish(
    session: Session, session_report: SessionReport, as_json_: bool, printed: bool = False
) -> None:
    """Print the result of a run, unless it is printed already; exit with the gate's code.

    Raises
    ------
    GateRejected
        If the gate said REJECTED.
    """
    from dwcp_ml.contract.errors import GateRejected

    if not printed:
        print_result(session, session_report, as_json_)
    if session_report.production_readiness.deployment_recommendation == "REJECTED":
        rejected = [
            name for name, model in session_report.models.items() if model.verdict == "REJECTED"
        ]
        raise GateRejected(
            f"The gate said REJECTED for {', '.join(rejected)}; "
            f"the reasons are in {shown(session.directory)}/report.md."
        )


def print_summary(session_report: SessionReport, directory: Path) -> None:
    """Print a table of the models, and the paths of the results."""
    from dwcp_ml.cli.terminal import print_table
    from dwcp_ml.evaluation import data_use, data_warnings, summary_table
    from dwcp_ml.evaluation.labels import findings_label
    from dwcp_ml.evaluation.report.tables import approved

    use = data_use(session_report.models.values())
    if use is not None:
        print_table("Use of the data", use.header, use.rows)
    for warning in data_warnings(session_report.models.values()):
        click.echo(f"warning: {warning}", err=True)
    ready = session_report.production_readiness
    summary = summary_table(session_report)
    print_table(
        f"{ready.deployment_recommendation}: {approved(session_report)}, trained in "
        f"{session_report.total_training_time_seconds:.0f} s",
        summary.header,
        summary.rows,
    )
    for model in session_report.models.values():
        if model.reasons:
            click.echo(f"{model.model_name}: {' '.join(model.reasons)}")
        if model.findings:
            click.echo(f"{model.model_name}: {findings_label(model.findings)}")
    for name, why in ready.unchecked.items():
        click.echo(f"unchecked: {name}: {why}")
    path = shown(directory)
    click.echo(f"\nReport    {path}/report.html")
    click.echo(f"Bundles   {path}/models/<model>/<version>/")
    if any(model.deployment_ready for model in session_report.models.values()):
        click.echo(f"Deploy    {path}/manifests/<model>/")


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
    """Return a path relative to the working directory if it is inside; else absolute."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def open_run(path: str) -> Session:
    """Return the run at a path, which stays there until the command ends."""
    from dwcp_ml.training_run.session import open_session

    session = open_session(Path(path))
    keep_runs(session.directory)
    return session


def keep_runs(*paths: Path) -> None:
    """Keep the runs that files belong to from being removed until the command ends."""
    from dwcp_ml.training_run.session import run_of

    for run in filter(None, map(run_of, paths)):
        click.get_current_context().with_resource(run.in_use())


@contextmanager
def resumable(session: Session, command: str, *, resumed: bool) -> Iterator[None]:
    """Say how to resume a run that is interrupted; remove a new one whose input is rejected."""
    import shutil

    from dwcp_ml.contract.errors import DataRefused, UsageError

    try:
        yield
    except (DataRefused, UsageError):
        if not resumed:
            shutil.rmtree(session.directory, ignore_errors=True)
        raise
    except KeyboardInterrupt:
        words = f"{command} --resume {shown(session.directory)}"
        click.echo(f"dwcp-ml: Interrupted; to resume: {words}", err=True)
        raise SystemExit(130) from None


def start_or_resume(root: str, options: RunOptions, resume: str | None) -> Session:
    """Return a new run in a directory, or the interrupted one; it stays until the command ends."""
    from dwcp_ml.training_run.session import new_session

    if resume:
        return open_run(resume)
    session = new_session(Path(root), options)
    keep_runs(session.directory)
    return session


def run_and_finish(
    root: str,
    options: RunOptions,
    resume: str | None,
    parallel: int,
    as_json_: bool,
    model_file: ModelFile | None = None,
) -> None:
    """Run the orchestrator on a new or interrupted session; exit with the gate's code."""
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.errors import UsageError
    from dwcp_ml.training_run.orchestrator import check_settings, run_session

    check_settings(options)
    session = start_or_resume(root, options, resume)
    chosen = session.options() if resume else options
    if (
        model_file is not None
        and model_file.formats(chosen.export_formats) != chosen.export_formats
    ):
        raise UsageError(
            f"{session.directory} does not export {model_file.source}, which --output needs; "
            "resume it without --output."
        )
    with resumable(session, "dwcp-ml train", resumed=resume is not None), drawing() as report:
        session_report = run_session(session, chosen, parallel=parallel, report=report)
    print_result(session, session_report, as_json_)
    if model_file is not None:
        written = model_file.write(session, session_report)
        words = f"Model     {model_file.path}"
        if not written:
            words = f"{model_file.path} is not written: the run has no exported model."
        click.echo(words, err=as_json_ or not written)
    finish(session, session_report, as_json_, printed=True)
