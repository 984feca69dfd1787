"""``dwcp-ml data``: simulate, convert, validate, describe and version telemetry."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dwcp_ml.cli import shared
from dwcp_ml.cli.run_options import DATA, RunCommand, chosen_options

if TYPE_CHECKING:
    from dwcp_ml.evaluation.leaks import LeakSearch


@click.group("data")
def group() -> None:
    """Make or convert telemetry, check it against the contract, describe it, version it."""


@group.command(cls=RunCommand, run_options=("seed",))
@shared.output_dir(
    "Directory of telemetry.csv, incidents.json, ceilings.json and oracles.parquet.", "data"
)
@shared.simulator
@click.option(
    "--show",
    is_flag=True,
    help="List the simulator's settings, their units and defaults, and stop.",
)
@shared.as_json
def simulate(
    output_dir: str, seed: int, simulator: tuple[str, ...], show: bool, as_json: bool
) -> None:
    """Simulate telemetry, with its incidents and the best metrics that any model can reach.

    \b
    dwcp-ml data simulate --output-dir data --seed 7
    dwcp-ml data simulate --set days=2
    """
    from dwcp_ml.cli.terminal import drawing, print_table
    from dwcp_ml.files import make_directory
    from dwcp_ml.simulate import SimulatorSettings
    from dwcp_ml.simulate import simulate as run
    from dwcp_ml.training_run.dataset import simulator_settings
    from dwcp_ml.training_run.progress import ProgressTask

    if show:
        fields = SimulatorSettings.model_fields
        rows = [[name, str(f.default), f.description or ""] for name, f in fields.items()]
        print_table("Settings of the simulator", ["setting", "default", "what it is"], rows)
        return
    chosen = simulator_settings(seed, shared.key_values(simulator))
    directory = make_directory(Path(output_dir))
    with drawing() as report, ProgressTask("simulate", report) as task:
        result = run(chosen, directory, progress=task.advance)
    if as_json:
        click.echo((directory / "ceilings.json").read_text(encoding="utf-8"), nl=False)
        return
    click.echo(f"{result.rows:,} rows in {directory}/telemetry.csv (seed {seed})")
    click.echo(f"incidents   {directory}/incidents.json")
    click.echo(f"ceilings    {directory}/ceilings.json")
    click.echo(f"oracles     {directory}/oracles.parquet")
    click.echo(
        f"\nNext: dwcp-ml train --data-path {directory}/telemetry.csv "
        f"--incidents-path {directory}/incidents.json"
    )


@group.command(
    cls=RunCommand,
    run_options=("models", *DATA[1:]),
)
@click.argument("data_path", metavar="FILE")
@click.option(
    "--output-dir",
    metavar="DIR",
    help="Write the clean rows, the quarantined ones and the report here.",
)
@click.option(
    "--missing-value-threshold",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Reject the file when a larger share of a needed column is missing.",
)
@shared.gap_factor
@shared.as_json
def validate(
    data_path: str,
    incidents_path: str | None,
    data_start: str | None,
    data_end: str | None,
    models: str,
    output_dir: str | None,
    as_json: bool,
    **units: Any,
) -> None:
    """Check telemetry against the contract; exit code 4 when it is rejected."""
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.data_window import data_window
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.data.validation import InvalidTelemetry
    from dwcp_ml.training_run.dataset import validate_at
    from dwcp_ml.training_run.progress import ProgressTask

    try:
        with drawing() as report, ProgressTask("validate", report) as task:
            checked = validate_at(
                data_path,
                incidents_path or "",
                specs=model_specs(models),
                window=data_window(data_start or "", data_end or ""),
                output=None if output_dir is None else Path(output_dir),
                now=time.time(),
                progress=task.advance,
                **units,
            )
    except InvalidTelemetry as error:
        _print_report(error.report, as_json)
        raise
    _print_report(checked, as_json)


@group.command(
    cls=RunCommand,
    run_options=("models", *DATA[1:], "accept_leak"),
)
@click.argument("data_path", metavar="FILE")
@shared.as_json
def leaks(as_json: bool, **chosen: Any) -> None:
    """Search telemetry for leaks without training.

    Exit with 3 if a model would be rejected, with 4 if the data of no model could be searched.
    """
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.contract.errors import DataRefused, ErrorCode, GateRejected
    from dwcp_ml.training_run.leak_data import leaks_in_file

    with drawing() as report:
        found = leaks_in_file(chosen_options(chosen), report)
    if as_json:
        shown = {name: each.model_dump(mode="json") for name, each in found.items()}
        click.echo(json.dumps(shown, indent=2))
    else:
        _print_searches(found)
    rejected = [n for n, each in found.items() if not all(leak.accepted for leak in each.leaks)]
    if not any(each.searched for each in found.values()):
        raise DataRefused("The data of no model could be searched.", code=ErrorCode.TOO_FEW)
    if rejected:
        raise GateRejected(f"The data of {', '.join(rejected)} leak: its model would be rejected.")


def _print_searches(found: Mapping[str, LeakSearch]) -> None:
    from dwcp_ml.cli.terminal import print_table
    from dwcp_ml.evaluation.report.leaks import leaks

    table = leaks({name: each.leaks for name, each in found.items()})
    if table is not None:
        print_table("Leaks in the data", table.header, table.rows)
    elif searched := [name for name, each in found.items() if each.searched]:
        click.echo(f"No leaks in the data of {', '.join(searched)}.")
    for name, each in found.items():
        if not each.searched:
            click.echo(f"{name}: {each.message}")


def _print_report(report: Any, as_json: bool) -> None:
    from dwcp_ml.cli.terminal import print_table
    from dwcp_ml.evaluation.report.tables import defects, window_facts

    if as_json:
        click.echo(report.to_json(), nl=False)
        return
    click.echo(
        f"{report.path}: {report.rows:,} rows, {report.links:,} links, "
        f"{report.first_timestamp} to {report.last_timestamp}, md5 {report.md5}"
    )
    for name, value in window_facts(report):
        click.echo(f"{name}: {value}")
    table = defects(report)
    if table is None:
        click.echo("No defects.")
        return
    kinds = len(table.rows)
    print_table(f"{kinds} {'kind' if kinds == 1 else 'kinds'} of defect", table.header, table.rows)


_FORMATS = ("iperf3", "ping", "prometheus", "gnettrack", "csv")


@group.command()
@click.argument("format_name", metavar="FORMAT", type=click.Choice(_FORMATS))
@click.argument("data_paths", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--output", default="telemetry.csv", show_default=True, metavar="FILE", help="The telemetry."
)
@click.option("--node", metavar="NAME", help="node_id of all rows.")
@click.option("--peer", metavar="NAME", help="peer_id of all rows.")
@click.option(
    "--map", "sources", multiple=True, metavar="COLUMN=SOURCE[@UNIT]",
    help="Take a column from a column or metric of the file, which has this unit.",
)  # fmt: skip
@click.option(
    "--constant", "constants", multiple=True, metavar="COLUMN=VALUE",
    help="A column with one value in all rows, such as link_type=edge.",
)  # fmt: skip
@click.option(
    "--carry-seconds", type=click.FloatRange(0), default=0.0, show_default=True,
    help="A missing value is the newest one of its link, if it is no older than this.",
)  # fmt: skip
@click.option("--node-label", default="node_id", show_default=True, help="prometheus: node_id.")
@click.option("--peer-label", default="peer_id", show_default=True, help="prometheus: peer_id.")
@click.option("--time-format", metavar="FORMAT", help="csv: times as strptime reads them.")
@click.option(
    "--timezone", "zone", default="UTC", show_default=True, metavar="ZONE",
    help="Zone of times that name none, such as Europe/Dublin.",
)  # fmt: skip
@click.option(
    "--interval-seconds", type=click.FloatRange(0, min_open=True), default=10.0,
    show_default=True, help="ping: the replies of this time are one row.",
)  # fmt: skip
@shared.as_json
def convert(
    format_name: str,
    data_paths: tuple[str, ...],
    output: str,
    sources: tuple[str, ...],
    constants: tuple[str, ...],
    carry_seconds: float,
    zone: str,
    as_json: bool,
    **choices: Any,
) -> None:
    """Convert files of another tool to telemetry: iperf3, ping, Prometheus, traces as CSV.

    \b
    iperf3      iperf3 -J: throughput, RTT, congestion window; -u -R: jitter, loss
    ping        ping -D of Linux: RTT, jitter, loss of every 10 s
    prometheus  responses to /api/v1/query_range, with --map COLUMN=METRIC@UNIT
    gnettrack   5G and LTE traces of the Android logger G-NetTrack Pro
    csv         any table, with --map COLUMN=COLUMN_OF_FILE@UNIT

    \b
    dwcp-ml data convert iperf3 a-to-b.json a-to-c.json --node a
    dwcp-ml data convert ping ping.txt --node a --peer b
    dwcp-ml data convert prometheus rtt.json loss.json --map rtt_ms=probe_rtt_seconds@s \\
      --map packet_loss=loss@percent --node-label source --peer-label target
    dwcp-ml data convert gnettrack static/*.csv --timezone Europe/Dublin --carry-seconds 30
    dwcp-ml data convert csv trace.csv --peer cdn --map timestamp=time@ms \\
      --map throughput_mbps=rate@kbit/s

    The file holds the columns that the source has, in the units of the contract, and no others:
    what is missing is not made up. A model that needs another column says so by its name.
    """
    from dwcp_ml.contract.models import MODELS
    from dwcp_ml.data.adapters import conversion, options

    result = conversion.convert(
        format_name,
        [Path(path) for path in data_paths],
        Path(output),
        options.Choices(
            sources=options.parse_sources(sources), zone=options.parse_zone(zone), **choices
        ),
        constants=options.parse_constants(constants),
        carry_seconds=carry_seconds,
    )
    if as_json:
        shared.print_json({**vars(result), "path": output})
        return
    links = f"{result.links:,} link{'' if result.links == 1 else 's'}"
    click.echo(f"{result.rows:,} rows of {links} in {output}")
    click.echo(f"columns     {', '.join(result.columns)}")
    for name, missing in result.missing.items():
        without = f"needs also {', '.join(missing)}" if missing else "has all its columns"
        click.echo(f"{MODELS[name].short_name:<11} {without}")
    click.echo(f"\nNext: dwcp-ml data validate {output} --models ...")


@group.command()
@click.option(
    "--markdown", is_flag=True, help="Print the table of the documentation instead of JSON."
)
def schema(markdown: bool) -> None:
    """Print the data contract as dwcp_training_schema.json, or as a table."""
    from dwcp_ml.data.schema import markdown_table, training_schema

    if markdown:
        click.echo(markdown_table(), nl=False)
    else:
        click.echo(json.dumps(training_schema(), indent=2))


@group.command()
@click.argument("data_path", metavar="FILE")
@click.option("--dvc", is_flag=True, help="Write FILE.dvc, a pointer that dvc accepts.")
@shared.as_json
def version(data_path: str, dvc: bool, as_json: bool) -> None:
    """Print the md5 and size of a file or a data set, as reports name their data."""
    from dwcp_ml.contract.errors import UsageError
    from dwcp_ml.data.versioning import write_dvc_pointer
    from dwcp_ml.storage.addresses import local_path, without_query
    from dwcp_ml.storage.partitions import partitions_of
    from dwcp_ml.training_run.dataset import version_at

    file = version_at(data_path)
    shown, pointer = without_query(data_path), None
    if dvc:
        path = local_path(data_path)
        if partitions_of(data_path) is not None:
            raise UsageError(f"--dvc writes the pointer of a file; for {shown} use `dvc add`.")
        if path is None:
            raise UsageError(f"--dvc writes {shown}.dvc beside the file, which is not local.")
        pointer = write_dvc_pointer(path, file)
    if as_json:
        click.echo(json.dumps({"path": shown, "md5": file.md5, "size_bytes": file.size_bytes}))
        return
    click.echo(f"md5 {file.md5}  {file.size_bytes:,} bytes  {shown}")
    if pointer is not None:
        click.echo(f"pointer {pointer}")
