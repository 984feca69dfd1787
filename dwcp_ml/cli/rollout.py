"""``dwcp-ml rollout``: roll a candidate out on this machine, or simulate it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from dwcp_ml.cli import rollout_cluster, shared

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from dwcp_ml.local_rollout.store import Store
    from dwcp_ml.rollout.simulated_environment import Traffic
    from dwcp_ml.rollout.simulation import Summary
    from dwcp_ml.rollout.spec import RolloutSpec

FEW_ROLLOUTS: Final = 100


_limit = click.option(
    "--limit-minutes", type=click.FloatRange(0.1), default=120.0,
    help="Time limit; then the rollout is held.",
)  # fmt: skip
_spec_path = click.option(
    "--spec", "spec_path", type=click.Path(path_type=Path), metavar="FILE",
    help="YAML with steps, analysis, watch_seconds; default: built in.",
)  # fmt: skip


@click.group("rollout")
def group() -> None:
    """Roll a candidate out step by step, with automatic roll-back."""


group.add_command(rollout_cluster.status_command)
group.add_command(rollout_cluster.timeline_command)


@group.command("run", context_settings={"show_default": True})
@click.option("--stable", required=True, type=click.Path(path_type=Path), metavar="BUNDLE",
              help="The live bundle: <model>/<version>.")  # fmt: skip
@click.option("--candidate", required=True, type=click.Path(path_type=Path), metavar="BUNDLE",
              help="The new bundle: another version of the same model.")  # fmt: skip
@click.option("--telemetry", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Telemetry whose last rows are replayed as traffic.")  # fmt: skip
@click.option("--state", type=click.Path(path_type=Path), required=True, metavar="DIR",
              help="The rollout's directory; resume continues from it.")  # fmt: skip
@click.option("--requests-per-second", type=click.FloatRange(0.1), default=100.0)
@_spec_path
@click.option("--incidents-path", type=click.Path(path_type=Path), metavar="FILE",
              help="Labelled incidents: ground truth of the reliability detector.")  # fmt: skip
@click.option("--label-delay-seconds", type=click.FloatRange(0), default=5.0,
              help="Time after a prediction until its ground truth is known.")  # fmt: skip
@_limit
@shared.as_json
def run_command(
    stable: Path,
    candidate: Path,
    telemetry: Path,
    state: Path,
    requests_per_second: float,
    spec_path: Path | None,
    incidents_path: Path | None,
    label_delay_seconds: float,
    limit_minutes: float,
    as_json: bool,
) -> None:
    """Roll a candidate out on this machine: two servers, a real Envoy, replayed traffic.

    \b
    Example:
      dwcp-ml rollout run --stable old/bandwidth_predictor/1 \\
        --candidate new/bandwidth_predictor/2 \\
        --telemetry telemetry.csv --state rollouts/bandwidth

    The candidate gets 1, 5, 25, 50 and 100 % of the traffic as its evidence allows, or is rolled
    back. The directory holds the status, from which a killed rollout continues, and at the end
    timeline.{json,md,html}. Exit code 0: promoted; 5: rolled back; 1: held at the time limit.
    """
    from dwcp_ml.local_rollout.running import rollout_request
    from dwcp_ml.local_rollout.store import Store

    request = rollout_request(
        stable,
        candidate,
        telemetry,
        requests_per_second=requests_per_second,
        settings=_settings(spec_path),
        incidents=incidents_path,
        label_delay_seconds=label_delay_seconds,
    )
    store = Store(state)
    store.create(request)
    _drive(store, limit_minutes, as_json)


@group.command("resume", context_settings={"show_default": True})
@click.option("--state", type=click.Path(path_type=Path, exists=True), required=True, metavar="DIR",
              help="Directory of an interrupted rollout.")  # fmt: skip
@_limit
@shared.as_json
def resume_command(state: Path, limit_minutes: float, as_json: bool) -> None:
    """Continue a rollout from its stored status."""
    from dwcp_ml.local_rollout.store import Store

    store = Store(state)
    store.request()
    _drive(store, limit_minutes, as_json)


def _drive(store: Store, limit_minutes: float, as_json: bool) -> None:
    from dwcp_ml.cli.rollout_progress import watching
    from dwcp_ml.contract.errors import DwcpError, RolledBack
    from dwcp_ml.local_rollout.running import run

    shared.keep_runs(*store.request().run.files())
    with watching(store.request().rollout) as watcher:
        ended = run(store, limit_seconds=60.0 * limit_minutes, watcher=watcher)
    if as_json:
        click.echo((store.directory / "timeline.json").read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(f"{ended.outcome}: {ended.status.cause.sentence}")
        click.echo(f"The candidate responded to {ended.status.exposed_requests:,} requests.")
        click.echo(f"Look at {shared.shown(ended.page)}")
    if ended.outcome == "RolledBack":
        raise RolledBack(f"Rolled back: {ended.status.cause.sentence}")
    if ended.outcome == "Held":
        raise DwcpError(
            f"The rollout did not end in time: {ended.status.cause.sentence} Continue it with "
            f"dwcp-ml rollout resume --state {store.directory}."
        )


@group.command("ready", context_settings={"show_default": True})
@click.option("--candidate", required=True, type=click.Path(path_type=Path), metavar="BUNDLE",
              help="The new bundle: <model>/<version>.")  # fmt: skip
@click.option("--stable", type=click.Path(path_type=Path), metavar="BUNDLE",
              help="The live bundle; without it the model's contract is compared.")  # fmt: skip
@_spec_path
@click.option("--requests-per-second", type=click.FloatRange(0, min_open=True), default=100.0,
              help="Expected traffic, over both arms.")  # fmt: skip
@click.option("--step-hours", type=click.FloatRange(0, min_open=True), default=2.0,
              help="Time limit of each step.")  # fmt: skip
@shared.as_json
def ready_command(
    candidate: Path,
    stable: Path | None,
    spec_path: Path | None,
    requests_per_second: float,
    step_hours: float,
    as_json: bool,
) -> None:
    """Check whether a rollout could be decided, before it starts.

    \b
    Example:
      dwcp-ml rollout ready --candidate new/bandwidth_predictor/2 \\
        --stable old/bandwidth_predictor/1 --requests-per-second 20

    Three checks: the candidate has the stable's contract; a server of it exports the metrics that
    the tests need; and in nine of ten simulated rollouts the traffic decides every step in time.
    Exit code 0: ready; 1: not ready, with what is missing.
    """
    from dwcp_ml.cli.terminal import drawing, print_table
    from dwcp_ml.export.verify import open_bundle
    from dwcp_ml.training_run.rollout_readiness import TrafficPlan, check_readiness

    name = open_bundle(candidate).manifest.name
    with drawing() as report:
        readiness = check_readiness(
            {name: candidate},
            _spec(spec_path),
            TrafficPlan(requests_per_second, 3600.0 * step_hours),
            stables={} if stable is None else {name: stable},
            report=report,
        )
    if as_json:
        click.echo(readiness.to_json(), nl=False)
    else:
        rows = [(c.name, "passed" if c.passed else "FAILED", c.detail) for c in readiness.checks]
        print_table("Ready for a rollout" if readiness.ready else "Not ready", ("check", "outcome",
                    "found"), rows)  # fmt: skip
        steps = [
            (f"{step.traffic_percent} %", _minutes(step.median_seconds), _minutes(step.p90_seconds))
            for step in readiness.steps
        ]
        title = f"Each step at {requests_per_second:g} requests/s, a good candidate"
        print_table(title, ("step", "median", "nine of ten"), steps)
    if not readiness.ready:
        raise click.exceptions.Exit(1)


@group.command("simulate", context_settings={"show_default": True})
@_spec_path
@click.option("--requests-per-second", type=click.FloatRange(0), default=100.0,
              help="Over both arms.")  # fmt: skip
@click.option("--shape", type=click.Choice(["constant", "diurnal", "bursts"]), default="constant",
              help="Traffic over time.")  # fmt: skip
@click.option("--stable-errors", type=click.FloatRange(0, 1), default=0.001,
              help="Share of requests to which the stable responds with an error.")  # fmt: skip
@click.option("--candidate-errors", type=click.FloatRange(0, 1),
              help="The candidate's; this or --slower gives one row.")  # fmt: skip
@click.option("--slower", type=click.FloatRange(0, min_open=True),
              help="The candidate's latency as a multiple of the stable's.")  # fmt: skip
@click.option(
    "--rollouts", type=click.IntRange(1), default=200, help="Simulated rollouts for each row."
)
@click.option(
    "--reconcile-interval",
    "reconcile_seconds",
    metavar="SECONDS",
    type=click.FloatRange(0.1),
    default=10.0,
    help="Time between two reconciliations.",
)
@click.option(
    "--limit-hours",
    type=click.FloatRange(0.01),
    default=24.0,
    help="Time limit; then the rollout is held.",
)
@click.option("--seed", type=int, default=42)
@click.option("--processes", type=click.IntRange(1), default=os.cpu_count() or 1,
              show_default="all cores", help="Number of cores to use.")  # fmt: skip
@shared.as_json
def simulate_command(spec_path: Path | None, as_json: bool, **chosen: Any) -> None:
    """Simulate rollouts in virtual time with synthetic traffic, many for each row.

    \b
    Examples:
      dwcp-ml rollout simulate                         the defaults, good and bad candidates
      dwcp-ml rollout simulate --requests-per-second 5 --spec my-steps.yaml
      dwcp-ml rollout simulate --candidate-errors 0.005 --rollouts 1000

    Shows how often a candidate is promoted, rolled back or held, how long that takes, and how many
    requests a bad candidate receives before it is rolled back. The share of roll-backs of a
    candidate like the stable must not exceed alpha.
    """
    from dwcp_ml.cli.terminal import drawing, print_table
    from dwcp_ml.rollout.simulation import simulate, summarise
    from dwcp_ml.training_run.progress import ProgressTask

    spec = _spec(spec_path)
    summaries: dict[str, Summary] = {}
    with drawing() as report, _pool(chosen["processes"], chosen["rollouts"]) as pool:
        for name, traffic in _rows(chosen).items():
            with ProgressTask(name, report) as task:
                outcomes = []
                for outcome in simulate(
                    spec,
                    traffic,
                    chosen["rollouts"],
                    seed=chosen["seed"],
                    reconcile_seconds=chosen["reconcile_seconds"],
                    limit_seconds=chosen["limit_hours"] * 3600.0,
                    pool=pool,
                ):
                    outcomes.append(outcome)
                    task.advance(len(outcomes) / chosen["rollouts"])
                summaries[name] = summarise(outcomes)
    if as_json:
        click.echo(
            json.dumps(
                {name: summary.model_dump() for name, summary in summaries.items()}, indent=2
            )
        )
        return
    header = (
        "candidate", "promoted", "rolled back (95 %)", "held", "to promote", "to roll back",
        "requests until roll-back",
    )  # fmt: skip
    print_table(
        "Simulated rollouts", header, [_cells(name, summary) for name, summary in summaries.items()]
    )
    click.echo(f"alpha {spec.analysis.alpha:g}, {chosen['rollouts']} rollouts a row.")


@contextlib.contextmanager
def _pool(processes: int, rollouts: int) -> Iterator[Executor | None]:
    """Yield processes to simulate in; none where starting them would take longer."""
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    if processes == 1 or rollouts < FEW_ROLLOUTS:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        yield pool


def _settings(path: Path | None) -> dict[str, Any]:
    """Return the settings of a YAML file; empty without one."""
    from dwcp_ml.models.settings import read_yaml

    return {} if path is None else read_yaml(path)


def _spec(path: Path | None) -> RolloutSpec:
    from dwcp_ml.rollout.spec import any_rollout

    return any_rollout(_settings(path))


def _rows(chosen: dict[str, Any]) -> dict[str, Traffic]:
    from dwcp_ml.rollout.simulated_environment import Traffic

    base = chosen["stable_errors"]

    def traffic(errors: float, slower: float) -> Traffic:
        return Traffic(
            requests_per_second=chosen["requests_per_second"],
            shape=chosen["shape"],
            stable_errors=base,
            candidate_errors=min(errors, 1.0),
            slower=slower,
        )

    if chosen["candidate_errors"] is not None or chosen["slower"] is not None:
        errors = base if chosen["candidate_errors"] is None else chosen["candidate_errors"]
        slower = chosen["slower"] or 1.0
        return {f"errors {errors:g}, latency ×{slower:g}": traffic(errors, slower)}
    rows = {"like the stable": traffic(base, 1.0)}
    rows |= {f"errors ×{factor}": traffic(base * factor, 1.0) for factor in (2, 5, 20)}
    return rows | {f"latency ×{factor:g}": traffic(base, factor) for factor in (1.5, 2.0, 3.0)}


def _cells(name: str, summary: Summary) -> tuple[str, ...]:
    back, exposed = summary.rolled_back, summary.median_exposed_requests_when_caught
    return (
        name,
        f"{summary.promoted.count / summary.promoted.of:.1%}",
        f"{back.count / back.of:.1%} ({back.low:.1%} to {back.high:.1%})",
        f"{summary.held.count / summary.held.of:.1%}",
        _minutes(summary.median_seconds_to_promote),
        _minutes(summary.median_seconds_to_catch),
        "" if exposed is None else f"{exposed:,.0f}",
    )


def _minutes(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds / 60:.1f} min"
