"""Validate telemetry against the contract: one report, and the clean copy that later steps read.

Validation streams: its memory does not grow with the file. The defects are listed in
``defects``; ``ordering`` describes how files that are out of order are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from dwcp_ml.contract.errors import DataRefused
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.checks import CongestionWindowUnit, PacketLossUnit
from dwcp_ml.data.incidents import Incident, read_incidents
from dwcp_ml.data.output import Workspace
from dwcp_ml.data.scanning import scan_file
from dwcp_ml.data.source import Progress, TelemetrySource, Unreadable, open_source
from dwcp_ml.data.validation_report import (
    InvalidTelemetry,
    Request,
    check_columns,
    check_unchanged,
    conclude,
    disk_errors_named,
    request_of,
    task_of,
    unreadable,
)
from dwcp_ml.data.versioning import FileVersion, file_version

__all__ = ["InvalidTelemetry", "validate"]


def validate(  # noqa: PLR0913 - one argument for each choice of the contract
    path: Path,
    *,
    specs: Sequence[ModelSpec],
    incidents_path: Path | None = None,
    output: Path | None = None,
    packet_loss_unit: PacketLossUnit = "fraction",
    congestion_window_unit: CongestionWindowUnit = "bytes",
    missing_value_threshold: float = 0.05,
    gap_factor: float = GAP_FACTOR,
    now: float | None = None,
    source: str = "file",
    progress: Progress | None = None,
) -> DataReport:
    """Check telemetry and incidents against the contract, and write the clean copy.

    Parameters
    ----------
    path, incidents_path
        Telemetry, CSV or Parquet; labelled incidents, JSON.
    specs
        The chosen models; only the columns that they need are required.
    output
        Directory that receives ``telemetry.parquet`` (the clean rows in contract units),
        ``quarantine.csv`` (number, codes and cells of the quarantined rows), ``incidents.json``
        (with ``incidents_path``) and ``validation.json`` (the report); ``None`` writes nothing.
    packet_loss_unit, congestion_window_unit
        The units of the file; a segment is 1460 bytes.
    missing_value_threshold
        The share of a needed column, or of the rows, that may be quarantined.
    gap_factor
        A step between rows of a link that is longer than this many usual ones is a gap.
    now
        Epoch seconds; rows over a day later are quarantined. Without it only rows after
        2100 are.
    source
        The origin that the report names: ``file`` or ``simulated``.

    Raises
    ------
    InvalidTelemetry
        If the data break the contract; the message names the most important error, the attribute
        ``report`` holds all of them, and nothing is written.
    DwcpError
        If ``output`` can't be written; nothing of it is left behind.
    """
    request = request_of(
        str(path),
        specs=specs,
        incidents_path=incidents_path,
        output=output,
        packet_loss_unit=packet_loss_unit,
        congestion_window_unit=congestion_window_unit,
        missing_value_threshold=missing_value_threshold,
        gap_factor=gap_factor,
        now=now,
        source=source,
        progress=progress,
    )
    try:
        opened = open_source(path)
        incidents = None if incidents_path is None else read_incidents(incidents_path)
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
