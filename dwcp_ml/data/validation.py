"""Validate telemetry against the contract: one report, and the clean copy that later steps read.

Validation streams: its memory does not grow with the file. The defects are listed in
``defects``; ``ordering`` describes how files that are out of order are checked.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.incidents import Incident, read_incidents
from dwcp_ml.data.output import Workspace
from dwcp_ml.data.scanning import scan_file
from dwcp_ml.data.source import TelemetrySource, Unreadable, open_source
from dwcp_ml.data.validation_report import (
    InvalidTelemetry,
    Request,
    check_columns,
    check_unchanged,
    conclude,
    disk_errors_named,
    task_of,
    unreadable,
)
from dwcp_ml.data.versioning import FileVersion, file_version

__all__ = ["InvalidTelemetry", "validate"]


def validate(path: Path, **options: Any) -> DataReport:
    """Check telemetry and incidents against the contract, and write the clean copy.

    Parameters
    ----------
    path
        Telemetry, CSV or Parquet.
    options
        As ``dwcp_ml.data.validation_report.Request`` takes them; ``specs`` is required.

    Raises
    ------
    InvalidTelemetry
        If the data break the contract; the message names the most important error, the attribute
        ``report`` holds all of them, and nothing is written.
    DwcpError
        If ``output`` can't be written; nothing of it is left behind.
    """
    request = Request(str(path), **options)
    try:
        opened = open_source(path)
        incidents = read_incidents(request.incidents_path) if request.incidents_path else None
        with ThreadPoolExecutor(1) as hashing:  # hashing releases the GIL
            version = hashing.submit(file_version, path)
            return _validate(request, opened, incidents, version)
    except Unreadable as error:
        raise unreadable(request, error, _version_if_readable(path)) from error


def _validate(
    request: Request,
    opened: TelemetrySource,
    incidents: list[Incident] | None,
    version: Future[FileVersion],
) -> DataReport:
    check_columns(request, opened, version.result)
    before = opened.path.stat()
    with disk_errors_named(request), Workspace(request.output) as workspace:
        scan = scan_file(task_of(request, opened, workspace.directory))
        check_unchanged(opened.path, before)
        return conclude(request, workspace, scan, version.result(), incidents)


def _version_if_readable(path: Path) -> FileVersion:
    try:
        return file_version(path)
    except DataRefused:
        return FileVersion("", 0)
