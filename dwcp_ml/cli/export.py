"""``dwcp-ml export``: write the bundles of a run to another place or in other formats."""

from __future__ import annotations

from pathlib import Path

import click

from dwcp_ml.cli import shared
from dwcp_ml.cli.run_options import RunCommand


@click.command("export", cls=RunCommand, run_options=("export_formats",))
@shared.run_option("The run whose models are exported.")
@shared.models_of_run
@click.option(
    "--output-dir", required=True, metavar="DIR", help="The bundles go to DIR/<model>/<version>/."
)
@shared.as_json
def command(
    run: str, models: str | None, output_dir: str, export_formats: str, as_json: bool
) -> None:
    """Export trained models to bundles and check that each predicts like the trained model."""
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.errors import ExportFailed
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.training_run.export_step import export_bundle
    from dwcp_ml.training_run.options import parse_formats

    session = shared.open_run(run)
    formats = parse_formats(export_formats)
    reports = {}
    with drawing() as report:
        for spec in model_specs(models) if models else session.options().specs():
            reports[spec.name] = export_bundle(
                session.dataset,
                session.trained(spec.name),
                session.evaluated(spec.name),
                Path(output_dir),
                spec,
                formats=formats,
                report=report,
            )
    if as_json:
        shared.print_json({name: model.export for name, model in reports.items()})
    failed = []
    for name, model in reports.items():
        if not model.export.success:
            failed.append(f"{name}: {model.export.reason}")
        elif not as_json:
            click.echo(f"{output_dir}/{name}/{model.version}  {model.export.model_size_mb:.2f} MB")
    if failed:
        raise ExportFailed(" ".join(failed))
