"""Runs workers as child processes: reports their progress, and writes one log for each.

TensorFlow's threads and seeds must be set when a process starts, and a crash must not stop the
other models: so every model is trained in a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from dwcp_ml.contract.champion import MANUAL, ChampionRule, ChampionSource
from dwcp_ml.contract.record import Record
from dwcp_ml.processes import ChildProcess, describe_exit
from dwcp_ml.training_run import progress
from dwcp_ml.training_run.options import ModelOptions

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
}
"""Environment of every worker: one thread, reproducible arithmetic, little logging."""


class WorkerRequest(Record):
    """What a worker is asked for: to train, evaluate and export one model of a session."""

    session: Path = Field(description="directory of the session")
    model: str = Field(description="full name")
    seed: int
    formats: tuple[str, ...] = Field(description="formats of the export")
    accept_leak: tuple[str, ...] = Field(description="columns whose leaks are known")
    options: ModelOptions
    champion: ChampionSource | None = Field(default=None, description="what is live; if known")
    champion_rule: ChampionRule = "not_worse"
    trigger: str = Field(default=MANUAL, description="what started the run")


@dataclass(frozen=True)
class Job:
    """One call of a worker: a name for its log, and its request, sent as JSON."""

    name: str
    request: WorkerRequest
    environment: Mapping[str, str] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], *, parallel: int, logs: Path, report: progress.Reporter
) -> dict[str, str]:
    """Run the jobs, at most ``parallel`` at a time, and return name -> reason of those that failed.

    Every job has a log, ``<logs>/<name>.log``. Ctrl-C ends the workers first.
    """
    logs.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()
    running: set[ChildProcess] = set()

    def locked_report(event: progress.ProgressEvent) -> None:
        with lock:
            report(event)

    def run_job(job: Job) -> str | None:
        return _run(job, logs / f"{job.name}.log", locked_report, running)

    failures = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        futures = {pool.submit(run_job, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                reason = future.result()
                if reason is not None:
                    failures[futures[future].name] = reason
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list(running):
                process.stop()
            raise
    return failures


def _run(
    job: Job, log_path: Path, report: progress.Reporter, running: set[ChildProcess]
) -> str | None:
    command = [sys.executable, "-m", "dwcp_ml.training_run.worker", job.request.model_dump_json()]
    failure = run_child(job.name, command, job.environment, log_path, report, running)
    return None if failure is None else failure.text


def run_child(
    name: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    log_path: Path,
    report: progress.Reporter,
    running: set[ChildProcess] | None = None,
) -> progress.ProgressEvent | None:
    """Run a process, report its events, and append the rest of its output to a log.

    Parameters
    ----------
    name
        Of the task that failed, if the process ends without reporting its failure.

    Returns
    -------
    ProgressEvent or None
        The failure; ``None`` if the process succeeded.
    """
    variables = {**QUIET, **environment, progress.MODE_VARIABLE: "events"}
    processes = set() if running is None else running
    failure = None
    with (
        ChildProcess(name, command, None, environment=variables) as child,
        log_path.open("a", encoding="utf-8") as log,
    ):
        processes.add(child)
        for line in child.process.stdout or ():
            event = progress.parse(line.lstrip())
            if event is None:
                log.write(line)
                log.flush()
                continue
            failure = event if event.state == "failed" else failure
            report(event)
        code = child.process.wait()
    processes.discard(child)
    if code == 0:
        return None
    reason = f"The process ended with {describe_exit(code)}; see {log_path}."
    return failure or progress.ProgressEvent(name, "failed", reason, None, 1)
