"""The master orchestrator: dataset, then every model in a process of its own, then the gate."""

from __future__ import annotations

import shutil
from pathlib import Path

from dwcp_ml.contract.checks import ApiChecks
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.files import write_text
from dwcp_ml.training_run import training_step
from dwcp_ml.training_run.dataset import REPORT_NAME, make_dataset, simulator_settings
from dwcp_ml.training_run.gate_step import judge_session
from dwcp_ml.training_run.interface_check import check_run
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import Reporter, ignore_event
from dwcp_ml.training_run.session import Session
from dwcp_ml.training_run.worker_pool import Job, run_jobs


def run_session(
    session: Session, options: RunOptions, *, parallel: int, report: Reporter = ignore_event
) -> SessionReport:
    """Run every stage of a session that is not done yet, and return the gate's answer.

    A session that was interrupted goes on where it stopped: finished models stay, and a training
    continues from its last checkpoint.

    Raises
    ------
    DataRefused
        If the telemetry breaks the contract.
    UsageError
        If a model's settings are wrong; nothing has been trained then.
    """
    check_settings(options)
    if not (session.dataset / REPORT_NAME).exists():
        make_dataset(options, session.dataset, report)
    failures = run_jobs(
        [_job(session, options, spec) for spec in options.specs()],
        parallel=parallel,
        logs=session.logs,
        report=report,
    )
    checks = _check(session, options, report)
    answer = judge_session(
        session.dataset,
        {spec.name: session.models for spec in options.specs()},
        session.directory,
        options,
        session=session.name,
        failures=failures,
        checks=checks,
        report=report,
    )
    shutil.rmtree(session.checkpoints, ignore_errors=True)
    session.publish()
    return answer


def _check(session: Session, options: RunOptions, report: Reporter) -> ApiChecks:
    """Serve what was exported and ask it; leave the record for a later gate."""
    found = check_run(
        {spec.name: session.models / spec.name / session.name for spec in options.specs()},
        options,
        report=report,
        log=session.logs / "server.log",
    )
    write_text(session.api_checks, found.to_json())
    return found


def check_settings(options: RunOptions) -> None:
    """Refuse wrong settings before anything long begins.

    Raises
    ------
    UsageError
        If a key or a value of a model's settings is wrong.
    """
    from dwcp_ml.models import create

    for spec in options.specs():
        create(spec.name, options.of(spec.name).overrides(spec))
    simulator_settings(options.seed, options.simulator)


def _job(session: Session, options: RunOptions, spec: ModelSpec) -> Job:
    request = {
        "session": str(session.directory),
        "model": spec.name,
        "seed": options.seed,
        "formats": list(options.export_formats),
        "options": options.of(spec.name).model_dump(mode="json"),
    }
    checkpoints = str(Path(session.checkpoints).resolve())
    return Job(spec.name, request, {training_step.CHECKPOINT_VARIABLE: checkpoints})
