"""The compiled pipeline's tasks on this machine, through Kubeflow's own local runner.

The runner lives in a child process: its log goes to a file, the tasks' progress comes back as
events, and its artifacts are laid out as a run's directory.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.errors import DataRefused, DwcpError, UsageError
from dwcp_ml.contract.records import Evaluation, SessionReport, TrainingRecord
from dwcp_ml.files import link, write_text
from dwcp_ml.training_run import evaluation_step, gate_step, training_step
from dwcp_ml.training_run.dataset import REPORT_NAME
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import (
    MODE_VARIABLE,
    ProgressEvent,
    Reporter,
    ignore_event,
    parse,
)
from dwcp_ml.training_run.session import Session
from dwcp_ml.training_run.worker_pool import QUIET, describe_exit

LOG_NAME = "pipeline.log"


def run_pipeline(
    session: Session, options: RunOptions, report: Reporter = ignore_event
) -> SessionReport:
    """Run the whole pipeline on this machine and lay its results out in the session's directory.

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
        "arguments": options.replace(version=session.name).pipeline_arguments(),
    }
    failure = _run_child(request, session, report)
    if failure is not None:
        kind = {4: DataRefused, 2: UsageError}.get(failure.exit_code or 1, DwcpError)
        raise kind(failure.text)
    _collect(session, root)
    shutil.rmtree(session.checkpoints, ignore_errors=True)
    session.publish()
    return SessionReport.read(session.directory / REPORT_NAMES[0])


def _run_child(
    request: Mapping[str, object], session: Session, report: Reporter
) -> ProgressEvent | None:
    """Run Kubeflow's local runner; return the event of the failure, ``None`` if it ended well."""
    environment = {
        **os.environ,
        **QUIET,
        MODE_VARIABLE: "events",
        training_step.CHECKPOINT_VARIABLE: str(session.checkpoints.resolve()),
    }
    log_path = session.logs / LOG_NAME
    failure = None
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "local", json.dumps(request)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    with process, log_path.open("a", encoding="utf-8") as log:
        for line in process.stdout or ():
            event = parse(line.lstrip())
            if event is None:
                log.write(line)
                continue
            failure = event if event.state == "failed" else failure
            report(event)
    if process.returncode == 0:
        return None
    how = f"the pipeline ended with {describe_exit(process.returncode)}; see {log_path}."
    return failure or ProgressEvent("pipeline", "failed", how, None, 1)


def _collect(session: Session, root: Path) -> None:
    """Lay out the newest run below ``root``: reports, bundles and manifests, links to the work."""
    newest = max(
        (path for path in root.iterdir() if path.is_dir()), key=lambda p: p.stat().st_mtime
    )
    _link_one(session.dataset, newest.glob(f"validate-data*/dataset/{REPORT_NAME}"))
    for path in newest.glob(f"train-*/model/{training_step.RECORD_NAME}"):
        link(session.trained(TrainingRecord.read(path).model_name), path.parent)
    for path in newest.glob(f"evaluate*/evaluation/{evaluation_step.RECORD_NAME}"):
        link(session.evaluated(Evaluation.read(path).model_name), path.parent)
    for path in newest.glob("export*/bundle/*"):
        shutil.copytree(path, session.models / path.name, dirs_exist_ok=True)
    write_text(session.api_checks, (newest / "check-api" / "checks").read_text(encoding="utf-8"))
    gate = newest / "gate"
    manifests = session.directory / gate_step.MANIFESTS_NAME
    shutil.rmtree(manifests, ignore_errors=True)
    shutil.copytree(gate / gate_step.MANIFESTS_NAME, manifests)
    for name, artifact in zip(REPORT_NAMES, ("report", "report_text", "report_page"), strict=True):
        write_text(session.directory / name, (gate / artifact).read_text(encoding="utf-8"))


def _link_one(place: Path, found: Iterable[Path]) -> None:
    for path in found:
        link(place, path.parent)
