"""The orchestrator of a local run: the dataset, each model in its own process, then the gate."""

from __future__ import annotations

import shutil
from pathlib import Path

from dwcp_ml.contract.champion import ChampionSource
from dwcp_ml.contract.checks import ApiChecks
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.files import write_text
from dwcp_ml.training_run import training_step
from dwcp_ml.training_run.champions import champions_of
from dwcp_ml.training_run.dataset import REPORT_NAME, make_dataset, simulator_settings
from dwcp_ml.training_run.gate_step import run_gate
from dwcp_ml.training_run.interface_check import check_run
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.previous_run import with_previous_bundles
from dwcp_ml.training_run.progress import Reporter, ignore_event
from dwcp_ml.training_run.session import Session
from dwcp_ml.training_run.worker_pool import Job, WorkerRequest, run_jobs


def run_session(
    session: Session, options: RunOptions, *, parallel: int, report: Reporter = ignore_event
) -> SessionReport:
    """Run the steps of a session that are not done yet, and return the gate's report.

    An interrupted session is resumed: finished models are kept, and a training continues from its
    last checkpoint.

    Raises
    ------
    DataRefused
        If the telemetry breaks the contract.
    UsageError
        If a model's settings are invalid; nothing has been trained then.
    """
    check_settings(options)
    if not (session.dataset / REPORT_NAME).exists():
        make_dataset(options, session.dataset, report)
    champions = champions_of(session, options)
    failures = run_jobs(
        [_job(session, options, spec, champions.get(spec.name)) for spec in options.specs()],
        parallel=parallel,
        logs=session.logs,
        report=report,
    )
    checks = _check(session, options, report)
    session_report = run_gate(
        session.dataset,
        {spec.name: session.models for spec in options.specs()},
        session.directory,
        with_previous_bundles(session, options),
        session=session.name,
        failures=failures,
        checks=checks,
        report=report,
    )
    shutil.rmtree(session.checkpoints, ignore_errors=True)
    session.publish()
    return session_report


def _check(session: Session, options: RunOptions, report: Reporter) -> ApiChecks:
    """Check the exported bundles, and store the result for a later gate."""
    checks = check_run(
        {spec.name: session.models / spec.name / session.name for spec in options.specs()},
        options,
        report=report,
        log=session.logs / "server.log",
    )
    write_text(session.api_checks, checks.to_json())
    return checks


def check_settings(options: RunOptions) -> None:
    """Check all settings before anything slow starts.

    Raises
    ------
    UsageError
        If a key or a value of the settings is invalid.
    """
    from dwcp_ml.models import create

    for spec in options.specs():
        create(spec.name, options.of(spec.name).overrides(spec))
    simulator_settings(options.seed, options.simulator)


def _job(
    session: Session, options: RunOptions, spec: ModelSpec, champion: ChampionSource | None
) -> Job:
    request = WorkerRequest(
        session=session.directory,
        model=spec.name,
        seed=options.seed,
        formats=options.export_formats,
        accept_leak=options.accept_leak,
        options=options.of(spec.name),
        champion=champion,
        champion_rule=options.champion_rule,
        trigger=options.trigger,
    )
    checkpoints = str(Path(session.checkpoints).resolve())
    return Job(spec.name, request, {training_step.CHECKPOINT_VARIABLE: checkpoints})
