"""``dwcp-ml monitor``: logged predictions compared with the telemetry that came later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from dwcp_ml.cli import shared
from dwcp_ml.cli.run_options import RunCommand

if TYPE_CHECKING:
    from dwcp_ml.monitoring import Figure, LiveAccuracy, Sources, VersionResult
    from dwcp_ml.monitoring.outcome_reports import ReportedVersion

F = TypeVar("F", bound=Callable[..., Any])

SHOWN: Final = {
    "bandwidth_predictor": ("mape_percent", "correlation", "correlation_within_link_median"),
    "compression_selector": ("accuracy", "throughput_gain", "regret"),
    "reliability_detector": (
        "recall",
        "pr_auc",
        "false_alarms_per_link_day",
        "precision",
        "event_recall",
    ),
    "consensus_latency": (
        "detection_accuracy",
        "reconstruction_mae",
        "false_positive_rate",
        "episode_recall",
    ),
}
"""The metrics that the table shows; --json has all of them."""


_RUN_OPTIONS: Final = ("incidents_path", "packet_loss_unit", "congestion_window_unit")

_JOIN: Final = (
    click.option(
        "--log", required=True, metavar="DIR", help="Directory of the prediction log, or its URI."
    ),
    click.option(
        "--data-path",
        required=True,
        metavar="FILE",
        help="Telemetry of the same time and a little later, CSV or Parquet.",
    ),
    click.option(
        "--model",
        "models",
        metavar="LIST",
        help="Models, comma-separated. [default: all in the log]",
    ),
    click.option("--since", metavar="TIME", help="Start; RFC 3339 or epoch seconds."),
    click.option("--until", metavar="TIME", help="End, exclusive."),
    click.option(
        "--tolerance-seconds",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Maximum time between a prediction and its observation. [default: --gap-factor "
        "usual steps of the link ahead, less than 1 back]",
    ),
    shared.gap_factor,
)
"""What is joined: the options of both commands."""


@click.group("monitor")
def group() -> None:
    """Measure how models do on live traffic."""


def _of_join(command: F) -> F:
    """Add the options that say what is joined."""
    for option in reversed(_JOIN):
        command = option(command)
    return command


@group.command("accuracy", cls=RunCommand, run_options=_RUN_OPTIONS)
@_of_join
@click.option("--output", metavar="FILE", help="Also write the result to this file, as JSON.")
@shared.as_json
def command(output: str | None, as_json: bool, **joined: Any) -> None:
    """Compare logged predictions with the ground truth, by model and version.

    \b
    dwcp-ml monitor accuracy --log predictions --data-path telemetry.csv \\
      --incidents-path incidents.json
    dwcp-ml monitor accuracy --log predictions --data-path telemetry.csv --model bandwidth \\
      --since 2026-01-31T00:00:00Z
    """
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.files import write_text
    from dwcp_ml.monitoring import live_accuracy

    sources = _sources(**joined)
    with drawing() as report:
        accuracy = live_accuracy(sources, report)
    if output is not None:
        write_text(Path(output), accuracy.to_json())
    if as_json:
        click.echo(accuracy.to_json(), nl=False)
    else:
        _print(accuracy)


@group.command("join", cls=RunCommand, run_options=_RUN_OPTIONS)
@_of_join
@click.option("--url", required=True, metavar="URL",
              help="Address of a model server, or of the gateway before several.")  # fmt: skip
@click.option("--state", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Keeps the time up to which everything is reported; it replaces --since, and "
              "the next run begins there.")  # fmt: skip
@shared.as_json
def join_command(url: str, state: Path | None, as_json: bool, **joined: Any) -> None:
    """Report what came true to the model servers, by joining their log with later telemetry.

    \b
    dwcp-ml monitor join --log predictions --data-path telemetry.csv \\
      --url http://bandwidth-predictor.models.example.com --state reported.json

    For callers that can't report outcomes themselves. The servers count them for the version that
    predicted, and a rollout decides by them (reportedLoss). Predictions whose ground truth may
    still come are left for the next run: run it as a CronJob, with --state on a volume. Exit code
    1: a server does not respond or refuses a report; 4: the log or the telemetry can't be used.
    """
    from dwcp_ml.cli.terminal import drawing
    from dwcp_ml.monitoring.outcome_reports import report_outcomes

    with drawing() as report:
        result = report_outcomes(_sources(**joined), url, state, report)
    if as_json:
        click.echo(result.to_json(), nl=False)
        return
    if not result.versions:
        click.echo("The log holds no prediction that was not reported before.")
    for each in result.versions:
        click.echo(f"{each.model} {each.version}: {_counts(each)}.")


def _counts(version: ReportedVersion) -> str:
    known = version.reported - version.counted
    words = [f"{version.reported:,} outcomes reported"]
    words += [f"{known:,} of them known before or without a loss"] if known else []
    words += [f"{count:,} not joined: {why}" for why, count in version.unmatched.items()]
    return ", ".join(words)


def _sources(
    log: str,
    data_path: str,
    incidents_path: str | None,
    models: str | None,
    since: str | None,
    until: str | None,
    tolerance_seconds: float | None,
    gap_factor: float,
    **units: Any,
) -> Sources:
    """Return what is joined."""
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.monitoring import Sources

    return Sources(
        log=log,
        data_path=data_path,
        incidents_path=incidents_path or "",
        models=model_specs(models) if models is not None else (),
        since=_moment("--since", since, float("-inf")),
        until=_moment("--until", until, float("inf")),
        tolerance_seconds=tolerance_seconds,
        gap_factor=gap_factor,
        **units,
    )


def _moment(option: str, text: str | None, default: float) -> float:
    """Return a time as epoch seconds.

    Raises
    ------
    UsageError
        If it is not a time.
    """
    from datetime import UTC, datetime

    from dwcp_ml.contract.errors import ErrorCode, UsageError

    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"{option} {text} is not a time: write 2026-01-31T12:00:00Z or epoch seconds.",
            code=ErrorCode.INVALID_OPTION,
            subject=option,
        ) from error
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def _print(accuracy: LiveAccuracy) -> None:
    from dwcp_ml.cli.terminal import print_table

    if not accuracy.results:
        click.echo(
            f"The log {accuracy.log} holds no matching prediction: check that the server runs with "
            "--log-predictions, and that --model, --since and --until select any."
        )
        return
    header = ["model", "version", "joined", "metric", "target", "live", "95 % interval", ""]
    rows = [row for result in accuracy.results for row in _rows(result)]
    print_table("Predictions compared with the ground truth", header, rows)
    for result in accuracy.results:
        name = f"{result.model_name} {result.version}"
        if result.unmatched:
            reasons = ", ".join(f"{count:,} {why}" for why, count in result.unmatched.items())
            click.echo(f"{name}: not joined: {reasons}.")
        if result.duplicates:
            click.echo(f"{name}: {result.duplicates:,} retries count once.")
        for note in result.notes:
            click.echo(f"{name}: {note}")
    if not any(result.joined for result in accuracy.results):
        click.echo(_advice(accuracy))


def _rows(result: VersionResult) -> list[list[str]]:
    """Return the table rows of one version; only the first shows its name."""
    from dwcp_ml.evaluation.labels import label, quantity, target_label

    joined = f"{result.joined:,} of {result.logged:,}"
    names = [result.model_name, result.version, joined]
    wanted = (result.figure(metric) for metric in SHOWN[result.model_name])
    figures: list[Figure] = [figure for figure in wanted if figure is not None]
    if not figures:
        return [[*names, "", "", "nothing to evaluate", "", ""]]
    rows = []
    for figure in figures:
        metric = figure.metric
        interval = "n/a"
        if figure.lower is not None:
            interval = f"{quantity(metric, figure.lower)} to {quantity(metric, figure.upper)}"
        verdict = "" if figure.met is None else ("met" if figure.met else "missed")
        target = "" if figure.target is None else target_label(figure.target)
        value = quantity(metric, figure.value)
        rows.append([*names, label(metric), target, value, interval, verdict])
        names = ["", "", ""]
    return rows


def _advice(accuracy: LiveAccuracy) -> str:
    """Return what to do if nothing was joined, for the most frequent reason."""
    from dwcp_ml.monitoring import Unmatched

    counts: dict[str, int] = {}
    for result in accuracy.results:
        for reason, count in result.unmatched.items():
            counts[reason] = counts.get(reason, 0) + count
    commonest = max(counts, key=lambda reason: counts[reason])
    last = "" if accuracy.data is None else f" (its last row is of {accuracy.data.last_timestamp})"
    advice = {
        Unmatched.NO_LINK: "send the header X-DWCP-Link: <node_id>/<peer_id> with each request.",
        Unmatched.UNKNOWN_LINK: "X-DWCP-Link must name node_id and peer_id as the telemetry does.",
        Unmatched.PENDING: f"give telemetry that goes on after the predictions{last}.",
        Unmatched.NO_OBSERVATION: "give telemetry of the time of the predictions, or check the "
        "clock behind X-DWCP-Observed-At.",
        Unmatched.NO_LABEL: "name labelled incidents with --incidents-path.",
        Unmatched.WINDOW_GAP: "give telemetry without gaps.",
        Unmatched.INVALID: "check the model: its predictions break its contract.",
        Unmatched.OTHER_FORM: "only the default form of a prediction can be evaluated.",
    }
    return f"Nothing was joined: {commonest}; {advice[Unmatched(commonest)]}"
