"""Validate telemetry against the contract: one report, and the clean copy that later steps read.

Validation streams: its memory does not grow with the file. The defects are listed in
``defects``; ``ordering`` describes how files that are out of order are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport, Defect
from dwcp_ml.data.checks import CLOCK_TOLERANCE, LATEST, CongestionWindowUnit, PacketLossUnit, Units
from dwcp_ml.data.convert import MILLISECONDS
from dwcp_ml.data.defect_rules import find_defects
from dwcp_ml.data.defects import Context, defect, missing_columns
from dwcp_ml.data.incidents import Incident, incidents_json, read_incidents
from dwcp_ml.data.output import INCIDENTS_NAME, REPORT_NAME, Workspace
from dwcp_ml.data.scanning import Pass, ScanTask, present_columns, scan_file
from dwcp_ml.data.source import Progress, TelemetrySource, Unreadable, open_source
from dwcp_ml.data.versioning import FileVersion, file_version
from dwcp_ml.files import cant_write


class InvalidTelemetry(DataRefused):
    """The telemetry or the incidents break the contract; ``report`` lists every defect.

    The subject is the code of the first defect that is an error.
    """

    def __init__(self, message: str, report: DataReport, defect: str) -> None:
        super().__init__(message, code=ErrorCode.CONTRACT, subject=defect)
        self.report = report


@dataclass(frozen=True)
class _Request:
    """The arguments of :func:`validate`."""

    path: Path
    specs: tuple[ModelSpec, ...]
    incidents_path: Path | None
    output: Path | None
    units: Units
    threshold: float
    gap_factor: float
    latest: int
    source: str
    progress: Progress | None

    def needed_by(self, header: Sequence[str]) -> dict[str, list[str]]:
        """Return the models that need each column; labels are needed where present."""
        result: dict[str, list[str]] = {}
        for spec in self.specs:
            labels = [name for name in spec.labels if name in header]
            for name in (*spec.needed_columns, *labels):
                result.setdefault(name, []).append(spec.name)
        return result


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
    latest = LATEST if now is None else min(LATEST, int(now) + CLOCK_TOLERANCE)
    units = Units(packet_loss_unit, congestion_window_unit)
    request = _Request(
        path,
        tuple(specs),
        incidents_path,
        output,
        units,
        missing_value_threshold,
        gap_factor,
        latest,
        source,
        progress,
    )
    try:
        opened = open_source(path)
        incidents = None if incidents_path is None else read_incidents(incidents_path)
        with ThreadPoolExecutor(1) as hashing:  # hashing releases the GIL
            version = hashing.submit(file_version, path)
            return _validate(request, opened, incidents, version)
    except Unreadable as error:
        raise _invalid(
            _unreadable_report(request, defect(error.defect, str(error), verdict="error"))
        ) from error


def _validate(
    request: _Request,
    opened: TelemetrySource,
    incidents: list[Incident] | None,
    version: Future[FileVersion],
) -> DataReport:
    context = Context(request.needed_by(opened.header), 0, request.threshold)
    missing = missing_columns(context, opened.header)
    if missing:
        raise _invalid(_report(request, version.result(), missing, opened))
    before = opened.path.stat()
    try:
        with Workspace(request.output) as workspace:
            scan = scan_file(_task(request, opened, workspace.directory))
            _check_unchanged(opened.path, before)
            context = Context(request.needed_by(opened.header), scan.rows, request.threshold)
            defects = find_defects(scan, context, request.specs, incidents)
            report = _report(request, version.result(), defects, opened, scan, incidents)
            if report.refused:
                raise _invalid(report)
            texts = {REPORT_NAME: report.to_json()}
            if incidents is not None:
                texts[INCIDENTS_NAME] = incidents_json(incidents)
            workspace.commit(texts)
            return report
    except OSError as error:
        what = request.output or "temporary files"
        raise cant_write(what, error, remedy="free space or name another place") from error


def _task(request: _Request, opened: TelemetrySource, directory: Path) -> ScanTask:
    columns = present_columns(opened.header)
    needed = frozenset(request.needed_by(opened.header))
    labels = frozenset(label for spec in request.specs for label in spec.labels)
    return ScanTask(
        opened,
        columns,
        needed,
        labels & needed,
        request.units,
        request.latest,
        directory,
        request.output is not None,
        request.gap_factor,
        request.progress,
    )


def _check_unchanged(path: Path, before: Any) -> None:
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Unreadable("changed", f"{path} changed while it was read: wait until it is complete.")


def _report(
    request: _Request,
    version: FileVersion,
    defects: Sequence[Defect],
    opened: TelemetrySource | None = None,
    scan: Pass | None = None,
    incidents: Sequence[Incident] | None = None,
) -> DataReport:
    """Return the report; ``opened`` is None for a file that can't be read."""
    incidents_path = request.incidents_path if opened else None
    return DataReport(
        path=str(request.path),
        md5=version.md5,
        size_bytes=version.size_bytes,
        rows=scan.rows if scan else (opened and opened.rows) or 0,
        rows_quarantined=scan.quarantined if scan else 0,
        columns=present_columns(opened.header) if opened else (),
        links=len(scan.links) if scan else 0,
        first_timestamp=_iso(scan.first) if scan else None,
        last_timestamp=_iso(scan.last) if scan else None,
        cadence_seconds=scan.known_steps.cadence() if scan else None,
        incidents=None if incidents is None else len(incidents),
        incidents_path=None if incidents_path is None else str(incidents_path),
        incidents_md5=None if incidents_path is None else file_version(incidents_path).md5,
        source=request.source,
        defects=tuple(defects),
    )


def _unreadable_report(request: _Request, found: Defect) -> DataReport:
    """Return the report on a file that can't be read."""
    try:
        version = file_version(request.path)
    except DataRefused:
        version = FileVersion("", 0)
    return _report(request, version, [found])


def _iso(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    # The moment is written to the millisecond where it has a fraction.
    moment = datetime.fromtimestamp(milliseconds / MILLISECONDS, UTC)
    precision = "milliseconds" if milliseconds % MILLISECONDS else "seconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _invalid(report: DataReport) -> InvalidTelemetry:
    errors = [found for found in report.defects if found.verdict == "error"]
    message = errors[0].message
    where = "" if report.path in message else f"{report.path}: "
    others = len(errors) - 1
    more = f" ({others} more error{'s' if others > 1 else ''})" if others else ""
    return InvalidTelemetry(f"{where}{message}{more}", report, errors[0].code)
