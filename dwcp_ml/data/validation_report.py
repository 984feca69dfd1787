"""What a validation is asked for, and the report that it gives."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dwcp_ml.contract.data_window import DataWindow, utc_time
from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.examples import GAP_FACTOR
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport, Defect
from dwcp_ml.data.checks import CLOCK_TOLERANCE, LATEST, CongestionWindowUnit, PacketLossUnit, Units
from dwcp_ml.data.defect_rules import find_defects
from dwcp_ml.data.defects import Context, defect, missing_columns
from dwcp_ml.data.incidents import Incident, incidents_json, overlapping
from dwcp_ml.data.output import INCIDENTS_NAME, REPORT_NAME, Workspace
from dwcp_ml.data.scanning import Pass, ScanTask, present_columns
from dwcp_ml.data.source import Progress, TelemetrySource, Unreadable
from dwcp_ml.data.versioning import FileVersion, file_version
from dwcp_ml.files import cant_write
from dwcp_ml.storage.partitions import SkippedFiles


class InvalidTelemetry(DataRefused):
    """The telemetry or the incidents break the contract; ``report`` lists every defect.

    The subject is the code of the first defect that is an error.
    """

    def __init__(self, message: str, report: DataReport, defect: str) -> None:
        super().__init__(message, code=ErrorCode.CONTRACT, subject=defect)
        self.report = report


@dataclass(frozen=True)
class Request:
    """What a validation is asked for.

    Parameters
    ----------
    name
        Of the telemetry, as the report and the messages name it: a path or an address.
    specs
        The chosen models; only the columns that they need are required.
    incidents_path
        Labelled incidents, JSON.
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
    window
        Rows outside it are not used, and incidents that do not overlap it are left out; ``None``
        uses all.
    skipped
        Files of the data set that are not read, because their dates are outside the window.
    source
        The origin that the report names: ``file`` or ``simulated``.
    progress
        Called with the share of the work that is done.
    """

    name: str
    specs: Sequence[ModelSpec]
    incidents_path: Path | None = None
    output: Path | None = None
    packet_loss_unit: PacketLossUnit = "fraction"
    congestion_window_unit: CongestionWindowUnit = "bytes"
    missing_value_threshold: float = 0.05
    gap_factor: float = GAP_FACTOR
    now: float | None = None
    window: DataWindow | None = None
    skipped: SkippedFiles | None = None
    source: str = "file"
    progress: Progress | None = None

    @property
    def latest(self) -> int:
        """The newest time that a row may have, epoch seconds."""
        return LATEST if self.now is None else min(LATEST, int(self.now) + CLOCK_TOLERANCE)

    def needed_by(self, header: Sequence[str]) -> dict[str, list[str]]:
        """Return the models that need each column; labels are needed where present."""
        result: dict[str, list[str]] = {}
        for spec in self.specs:
            labels = [name for name in spec.labels if name in header]
            for name in (*spec.needed_columns, *labels):
                result.setdefault(name, []).append(spec.name)
        return result


def task_of(
    request: Request, opened: TelemetrySource, directory: Path, *, keep_ends: bool = False
) -> ScanTask:
    """Return the task of scanning a source, whose clean copy goes to ``directory``."""
    columns = present_columns(opened.header)
    needed = frozenset(request.needed_by(opened.header))
    labels = frozenset(label for spec in request.specs for label in spec.labels)
    return ScanTask(
        opened,
        columns,
        needed,
        labels & needed,
        Units(request.packet_loss_unit, request.congestion_window_unit),
        request.latest,
        directory,
        request.output is not None,
        request.gap_factor,
        request.progress,
        keep_ends,
        request.window,
        request.skipped,
    )


def report_of(
    request: Request,
    version: FileVersion,
    defects: Sequence[Defect],
    opened: TelemetrySource | None = None,
    scan: Pass | None = None,
    incidents: Sequence[Incident] | None = None,
    incidents_outside: int = 0,
) -> DataReport:
    """Return the report; ``opened`` is None for a file that can't be read."""
    window = request.window or DataWindow()
    incidents_path = request.incidents_path if opened else None
    return DataReport(
        path=request.name,
        md5=version.md5,
        size_bytes=version.size_bytes,
        rows=scan.rows if scan else (opened and opened.rows) or 0,
        rows_quarantined=scan.quarantined if scan else 0,
        columns=present_columns(opened.header) if opened else (),
        links=len(scan.links) if scan else 0,
        first_timestamp=_utc_time(scan.first) if scan else None,
        last_timestamp=_utc_time(scan.last) if scan else None,
        data_start=_utc_time(window.start),
        data_end=_utc_time(window.end),
        rows_outside_window=scan.outside.rows if scan else 0,
        files_outside_window=request.skipped.files if request.skipped else 0,
        cadence_seconds=scan.known_steps.cadence() if scan else None,
        incidents=None if incidents is None else len(incidents),
        incidents_outside_window=incidents_outside,
        incidents_path=None if incidents_path is None else str(incidents_path),
        incidents_md5=None if incidents_path is None else file_version(incidents_path).md5,
        source=request.source,
        defects=tuple(defects),
    )


def _utc_time(milliseconds: int | None) -> str | None:
    return None if milliseconds is None else utc_time(milliseconds)


def invalid(report: DataReport) -> InvalidTelemetry:
    """Return the error of a report that has an error."""
    errors = [found for found in report.defects if found.verdict == "error"]
    message = errors[0].message
    where = "" if report.path in message else f"{report.path}: "
    others = len(errors) - 1
    more = f" ({others} more error{'s' if others > 1 else ''})" if others else ""
    return InvalidTelemetry(f"{where}{message}{more}", report, errors[0].code)


def unreadable(request: Request, error: Unreadable, version: FileVersion) -> InvalidTelemetry:
    """Return the error of data that can't be read."""
    found = defect(error.defect, str(error), verdict="error")
    return invalid(report_of(request, version, [found]))


def conclude(
    request: Request,
    workspace: Workspace,
    scan: Pass,
    version: FileVersion,
    incidents: Sequence[Incident] | None,
) -> DataReport:
    """Return the report of a scan, and move the files of the workspace to their final names.

    Raises
    ------
    InvalidTelemetry
        If a defect is an error.
    """
    opened, given = scan.task.source, incidents
    if given is not None and request.window is not None:
        incidents = overlapping(given, request.window)
    context = Context(request.needed_by(opened.header), scan.rows, request.missing_value_threshold)
    defects = find_defects(scan, context, request.specs, incidents)
    outside = len(given or ()) - len(incidents or ())
    report = report_of(request, version, defects, opened, scan, incidents, outside)
    if report.refused:
        raise invalid(report)
    texts = {REPORT_NAME: report.to_json()}
    if incidents is not None:
        texts[INCIDENTS_NAME] = incidents_json(incidents)
    workspace.commit(texts)
    return report


def check_columns(
    request: Request, opened: TelemetrySource, version: Callable[[], FileVersion]
) -> None:
    """Raise ``InvalidTelemetry`` if a source lacks a column that a model needs."""
    context = Context(request.needed_by(opened.header), 0, request.missing_value_threshold)
    missing = missing_columns(context, opened.header)
    if missing:
        raise invalid(report_of(request, version(), missing, opened))


def check_unchanged(path: Path, before: os.stat_result) -> None:
    """Raise ``Unreadable`` if a file is not as it was."""
    after = path.stat()
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise Unreadable("changed", f"{path} changed while it was read: wait until it is complete.")


@contextmanager
def disk_errors_named(request: Request) -> Iterator[None]:
    """Raise ``DwcpError`` with the name of the output for an error of the disk in the block."""
    try:
        yield
    except OSError as error:
        what = request.output or "temporary files"
        raise cant_write(what, error, remedy="free space or name another place") from error
