"""``dwcp-ml evaluate``: evaluate the models of a run again, on its own or on other telemetry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from dwcp_ml.cli import shared
from dwcp_ml.cli.run_options import RunCommand

if TYPE_CHECKING:
    from dwcp_ml.contract.evaluation import Evaluation
    from dwcp_ml.contract.models import Target


@click.command("evaluate", cls=RunCommand, run_options=("incidents_path", "accept_leak"))
@shared.run_option("The run whose models are evaluated.")
@shared.models_of_run
@click.option(
    "--data-path",
    metavar="FILE",
    help="Other telemetry, whose test split is used. [default: the telemetry of the run]",
)
@click.option(
    "--output-dir",
    metavar="DIR",
    help="Directory of evaluation.json and plot_data.npz. [default: the run's directory "
    "work/evaluated]",
)
@shared.as_json
def command(
    run: str, models: str | None, data_path: str | None, incidents_path: str | None,
    accept_leak: str | None, output_dir: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Evaluate the models of a run; exit with 3 if a model misses a target or its data leak."""
    from dwcp_ml.cli.terminal import drawing, print_table
    from dwcp_ml.contract.errors import GateRejected
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.training_run.evaluation_step import evaluate_run
    from dwcp_ml.training_run.options import parse_leaks

    session = shared.open_run(run)
    specs = model_specs(models) if models else session.options().specs()
    with drawing() as report:
        evaluations = evaluate_run(
            session,
            specs,
            data_path=data_path,
            incidents_path=incidents_path,
            accept_leak=None if accept_leak is None else parse_leaks(accept_leak),
            output=Path(output_dir) if output_dir else None,
            report=report,
        )
    if as_json:
        shared.print_json(evaluations)
    else:
        rows = [
            [name, metric, _target(each.target_of(metric)), _number(value)]
            for name, each in evaluations.items()
            for metric, value in each.metrics.items()
        ]
        print_table("On the test split", ["model", "metric", "target", "achieved"], rows)
        _print_leaks(evaluations)
    missed = [name for name, each in evaluations.items() if each.missed_targets or not each.success]
    if missed:
        raise GateRejected(f"Targets were missed by {', '.join(missed)}; the table shows which.")
    leaking = [n for n, each in evaluations.items() if not all(k.accepted for k in each.leaks)]
    if leaking:
        raise GateRejected(f"The data of {', '.join(leaking)} leak; the table shows in what.")


def _print_leaks(evaluations: dict[str, Evaluation]) -> None:
    from dwcp_ml.cli.terminal import print_table
    from dwcp_ml.evaluation.report.leaks import leaks

    table = leaks({name: each.leaks for name, each in evaluations.items()})
    if table is not None:
        print_table("Leaks in the data", table.header, table.rows)


def _target(target: Target | None) -> str:
    from dwcp_ml.evaluation.labels import target_label

    return "" if target is None else target_label(target)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4g}"
