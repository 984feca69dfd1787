"""``dwcp-ml pipeline``: compile the Kubeflow pipeline, run it on this machine, or submit it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from dwcp_ml.cli import shared, submit
from dwcp_ml.cli.rollout_demo import show_rollouts
from dwcp_ml.cli.run_options import RUN, RunCommand, chosen_options


@click.group("pipeline")
def group() -> None:
    """Compile the Kubeflow pipeline, run it on this machine, or submit it."""


group.add_command(submit.command)


@group.command("compile", cls=RunCommand, run_options=("models",))
@click.option(
    "--output",
    default="pipelines/training.yaml",
    show_default=True,
    metavar="FILE",
    help="The compiled pipeline.",
)
@click.option(
    "--resources",
    metavar="FILE",
    help="CPU, memory, retries, timeouts, cache and rights of each task. "
    "[default: pipelines/resources.yaml, which documents its keys]",
)
@click.option(
    "--partitions",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    metavar="N",
    help="Validate a data set of several files in at most N tasks at once, and merge them; 0 for "
    "one task.",
)
def compile_(output: str, resources: str | None, partitions: int, models: str) -> None:
    """Compile the pipeline to YAML for Kubeflow.

    \b
    DWCP_TRAINER_IMAGE=registry/dwcp-ml-trainer:1.2 dwcp-ml pipeline compile --output p.yaml
    """
    from dwcp_ml.contract.errors import DwcpError, UsageError
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.files import make_directory

    path = Path(output)
    names = ",".join(spec.name for spec in model_specs(models))
    make_directory(path.parent)
    process = subprocess.run(
        [
            sys.executable, "-m", "pipelines", "compile", str(path), names,
            resources or "", str(partitions),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        if process.returncode == UsageError.exit_code:
            raise UsageError(last)
        raise DwcpError(f"The pipeline does not compile: {last}")
    click.echo(f"Compiled {output}")


@group.command(cls=RunCommand, run_options=RUN)
@shared.output_dir("The run gets a new directory in this one, and DIR/latest links to it.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs, at most.")
@click.option(
    "--rollouts/--no-rollouts",
    default=False,
    show_default=True,
    help="Then roll out the approved bandwidth predictor on this machine, and show that a broken "
    "one is rolled back; takes at most three minutes.",
)
@click.option(
    "--resume",
    metavar="RUN",
    help="Resume an interrupted run: trainings continue from their checkpoints.",
)
@shared.as_json
def run(
    output_dir: str,
    epochs: int | None,
    resume: str | None,
    rollouts: bool,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Run the pipeline on this machine with Kubeflow's local runner: no container, no cluster.

    \b
    dwcp-ml pipeline run                                simulated telemetry, all four models
    dwcp-ml pipeline run --data-path t.csv --incidents-path i.json
    """
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.training_run.local_pipeline import run_pipeline
    from dwcp_ml.training_run.options import ModelOptions

    specs = model_specs(chosen["models"])
    model_options = {spec.name: ModelOptions(epochs=epochs) for spec in specs}
    options = chosen_options(chosen, model_options=model_options)
    session = shared.start_or_resume(output_dir, options, resume)
    options = session.options()
    interrupted = shared.resumable(session, "dwcp-ml pipeline run", resumed=resume is not None)
    with interrupted, drawing() as report:
        session_report = run_pipeline(session, options, report)
    if rollouts:
        shared.print_result(session, session_report, as_json)
        show_rollouts(session, session_report, quiet=as_json)
    shared.finish(session, session_report, as_json, printed=rollouts)
