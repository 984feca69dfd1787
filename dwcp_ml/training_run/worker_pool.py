"""Stages in processes of their own: progress read back, everything else into one log a task.

TensorFlow wants its threads and seeds set before anything else happens, and a model that takes its
process down must not take the others': so every model is trained in a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dwcp_ml.training_run import progress

QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "CUDA_VISIBLE_DEVICES": "-1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "PYTHONHASHSEED": "0",
}
"""Environment of every worker: one thread, the same arithmetic everywhere, no chatter."""


@dataclass(frozen=True)
class Job:
    """One call of one worker: a name for the log, and the request it is given as JSON."""

    name: str
    request: Mapping[str, Any]
    environment: Mapping[str, str] = field(default_factory=dict)


def run_jobs(
    jobs: Sequence[Job], *, parallel: int, logs: Path, report: progress.Reporter
) -> dict[str, str]:
    """Run the jobs, at most ``parallel`` at a time, and return name -> reason of those that failed.

    Every job has its log, ``<logs>/<name>.log``. On Ctrl-C the workers are ended first.
    """
    logs.mkdir(parents=True, exist_ok=True)
    lock = threading.Lock()
    running: set[subprocess.Popen[str]] = set()

    def locked_report(event: progress.ProgressEvent) -> None:
        with lock:
            report(event)

    def one(job: Job) -> str | None:
        return _run(job, logs / f"{job.name}.log", locked_report, running)

    failures = {}
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, parallel)) as pool:
        futures = {pool.submit(one, job): job for job in jobs}
        try:
            for future in concurrent.futures.as_completed(futures):
                reason = future.result()
                if reason is not None:
                    failures[futures[future].name] = reason
        except BaseException:
            for future in futures:
                future.cancel()
            for process in list(running):
                process.send_signal(signal.SIGTERM)
            raise
    return failures


def _run(
    job: Job, log_path: Path, report: progress.Reporter, running: set[subprocess.Popen[str]]
) -> str | None:
    environment = {**os.environ, **QUIET, **job.environment, progress.MODE_VARIABLE: "events"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dwcp_ml.training_run.worker", json.dumps(dict(job.request))],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    running.add(process)
    failure = None
    with process, log_path.open("a", encoding="utf-8") as log:
        for line in process.stdout or ():
            event = progress.parse(line)
            if event is None:
                log.write(line)
                log.flush()
                continue
            failure = event.text if event.state == "failed" else failure
            report(event)
    running.discard(process)
    if process.returncode == 0:
        return None
    return failure or f"the worker ended with {describe_exit(process.returncode)}; see {log_path}"


def describe_exit(code: int) -> str:
    """Return what an exit code says: the signal's name for a negative one.

    >>> describe_exit(-9)
    'signal SIGKILL'
    """
    if code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
