"""Runs the pipeline on this machine with Kubeflow's local runner.

The runner is a child process: its log goes to a file, the progress of its tasks is read as events,
and its artifacts are copied into the directory of the run.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.errors import DataRefused, DwcpError, UsageError
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.records import SessionReport, TrainingRecord
from dwcp_ml.files import link, write_text
from dwcp_ml.training_run import evaluation_step, gate_step, training_step
from dwcp_ml.training_run.champions import CHAMPIONS_VARIABLE, champions_of, to_json
from dwcp_ml.training_run.dataset import REPORT_NAME
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.previous_run import with_previous_bundles
from dwcp_ml.training_run.progress import (
    Reporter,
    ignore_event,
)
from dwcp_ml.training_run.session import Session
from dwcp_ml.training_run.worker_pool import run_child

LOG_NAME = "pipeline.log"


def run_pipeline(
    session: Session, options: RunOptions, report: Reporter = ignore_event
) -> SessionReport:
    """Run the whole pipeline on this machine, and collect its results in the run's directory.

    Raises
    ------
    DataRefused
        If the telemetry breaks the contract.
    DwcpError
        If a task failed; the message names the log.
    """
    root = session.work / "kfp"
    root.mkdir(parents=True, exist_ok=True)
    session.logs.mkdir(exist_ok=True)
    request = {
        "root": str(root),
        "models": list(options.models),
        "arguments": with_previous_bundles(session, options)
        .replace(version=session.name)
        .pipeline_arguments(),
    }
    command = [sys.executable, "-m", "pipelines", "local", json.dumps(request)]
    environment = {
        training_step.CHECKPOINT_VARIABLE: str(session.checkpoints.resolve()),
        CHAMPIONS_VARIABLE: json.dumps(to_json(champions_of(session, options))),
    }
    failure = run_child("pipeline", command, environment, session.logs / LOG_NAME, report)
    if failure is not None:
        kind = {4: DataRefused, 2: UsageError}.get(failure.exit_code or 1, DwcpError)
        raise kind(failure.text)
    _collect(session, root)
    shutil.rmtree(session.checkpoints, ignore_errors=True)
    session.publish()
    return SessionReport.read(session.directory / REPORT_NAMES[0])


def _collect(session: Session, root: Path) -> None:
    """Copy reports, bundles and manifests of the newest run in ``root``; link the rest."""
    from dwcp_ml.export.bundle import copy_version

    newest = max(
        (path for path in root.iterdir() if path.is_dir()), key=lambda p: p.stat().st_mtime
    )
    for path in newest.glob(f"validate-data*/dataset/{REPORT_NAME}"):
        link(session.dataset, path.parent)
    for path in newest.glob(f"train-*/model/{training_step.RECORD_NAME}"):
        link(session.trained(TrainingRecord.read(path).model_name), path.parent)
    for path in newest.glob(f"evaluate*/evaluation/{evaluation_step.RECORD_NAME}"):
        link(session.evaluated(Evaluation.read(path).model_name), path.parent)
    for path in newest.glob("export*/bundle/*/*"):
        copy_version(path, session.models / path.parent.name / path.name)
    write_text(session.api_checks, (newest / "check-api" / "checks").read_text(encoding="utf-8"))
    gate = newest / "gate"
    manifests = session.directory / gate_step.MANIFESTS_NAME
    shutil.rmtree(manifests, ignore_errors=True)
    shutil.copytree(gate / gate_step.MANIFESTS_NAME, manifests)
    for name, artifact in zip(REPORT_NAMES, ("report", "report_text", "report_page"), strict=True):
        write_text(session.directory / name, (gate / artifact).read_text(encoding="utf-8"))
