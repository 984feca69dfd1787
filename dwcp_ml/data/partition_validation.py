"""Validate a data set partition by partition, and merge the scans to one report.

On one machine the partitions follow each other; on Kubeflow each is a task. Memory does not grow
with the number of rows. If the scans can't be merged (see ``partials``), one pass over all
partitions gives the report.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.incidents import Incident, read_incidents
from dwcp_ml.data.output import QUARANTINE_NAME, TELEMETRY_NAME, Workspace, join_quarantine
from dwcp_ml.data.partials import (
    MergeObstacle,
    NotMergeable,
    PartialReport,
    StoredPartial,
    merged_scan,
    partial_report,
)
from dwcp_ml.data.partitions import PartitionedSource, open_partition
from dwcp_ml.data.scanning import present_columns, scan_file
from dwcp_ml.data.source import Unreadable
from dwcp_ml.data.validation_report import (
    Request,
    check_columns,
    check_unchanged,
    conclude,
    disk_errors_named,
    task_of,
    unreadable,
)
from dwcp_ml.data.versioning import FileVersion, check_version, file_version, version_of_set
from dwcp_ml.storage.partitions import Partition

_UNKNOWN: Final = FileVersion("", 0)
_REMEDIES: Final = {
    MergeObstacle.OVERLAP: "{series} has rows that are not newer than those of the partitions "
    "before: give each partition a time of its own",
    MergeObstacle.LABELS: "it lacks labels that others have: write them in all or in none",
    MergeObstacle.SETTINGS: "it was validated with other settings: validate all partitions again",
}


def validate_partitions(
    name: str, parts: Sequence[Partition], *, expected_md5: str | None = None, **options: Any
) -> DataReport:
    """Check a partitioned data set against the contract, and write the clean copy.

    Parameters
    ----------
    name
        Its address, for the report and the messages.
    parts
        Its files, in the order in which their rows are numbered.
    expected_md5
        The md5 that it must have, as :func:`dwcp_ml.data.versioning.version_of_set` defines it.
    options
        As ``dwcp_ml.data.validation_report.Request`` takes them; ``telemetry.parquet`` in the
        output is a directory with one file for each partition, or one file if they overlap in time.

    Raises
    ------
    InvalidTelemetry
        If the data break the contract.
    DataRefused
        If a file can't be read, or the md5 is another one.
    """
    request = Request(name, **options)
    incidents = _incidents(request)
    partials: list[StoredPartial] = []
    with disk_errors_named(request), Workspace(request.output) as workspace:
        directories = [workspace.directory / f"part-{index}" for index in range(len(parts))]
        for part, directory in zip(parts, directories, strict=True):
            directory.mkdir()
            partial = validate_partition(request, part, directory)
            partials.append(StoredPartial.write(directory, partial))
            if request.progress:
                request.progress(len(partials) / len(parts))
        check_version(name, _version(partials), expected_md5)
        try:
            return _merged(request, partials, workspace, incidents)
        except NotMergeable:
            for directory in directories:
                shutil.rmtree(directory)
            return _in_one_pass(request, parts, partials, workspace, incidents)


def validate_partition(request: Request, part: Partition, directory: Path) -> PartialReport:
    """Scan one partition, and write its clean and its quarantined rows to a directory.

    Nothing is written if ``request.output`` is ``None``.

    Raises
    ------
    InvalidTelemetry
        If it can't be read, or lacks a column.
    """
    version = _UNKNOWN
    with part.opened() as path:
        try:
            before = path.stat()
            with ThreadPoolExecutor(1) as hashing:
                hashed = hashing.submit(file_version, path)
                opened = open_partition(path, part)
                check_columns(request, opened, hashed.result)
                scan = scan_file(task_of(request, opened, directory, keep_ends=True))
                version = hashed.result()
            check_unchanged(path, before)
        except Unreadable as error:
            raise unreadable(request, error, version) from error
        return partial_report(scan, part.name, version)


def merge_partitions(
    name: str, directories: Sequence[Path], *, expected_md5: str | None = None, **options: Any
) -> DataReport:
    """Merge validated partitions, each a directory with ``partial.json``, to one dataset.

    The directories are put in the order of the names of their partitions; parameters and errors as
    of :func:`validate_partitions`.

    Raises
    ------
    DataRefused
        If the partitions can't be merged; the message says which one and why.
    """
    request = Request(name, **options)
    incidents = _incidents(request)
    partials = sorted(map(StoredPartial.find, directories), key=lambda partial: partial.name)
    check_version(name, _version(partials), expected_md5)
    with disk_errors_named(request), Workspace(request.output) as workspace:
        try:
            return _merged(request, partials, workspace, incidents)
        except NotMergeable as error:
            raise DataRefused(
                f"Partition {error.partition} of {name} can't be merged with those before: "
                f"{_REMEDIES[error.obstacle].format(series=error.series)}, or run the pipeline "
                "without tasks for partitions.",
                code=ErrorCode.CONTRACT,
                subject=error.obstacle,
            ) from error


def _incidents(request: Request) -> list[Incident] | None:
    return None if request.incidents_path is None else read_incidents(request.incidents_path)


def _version(partials: Iterable[StoredPartial]) -> FileVersion:
    return version_of_set((part.name, part.version) for part in partials)


def _merged(
    request: Request,
    partials: Sequence[StoredPartial],
    workspace: Workspace,
    incidents: Sequence[Incident] | None,
) -> DataReport:
    version = _version(partials)
    try:
        source = _source(request, partials)
        scan = merged_scan(task_of(request, source, workspace.directory), partials)
    except Unreadable as error:
        raise unreadable(request, error, version) from error
    if request.output is not None:
        telemetry = workspace.directory / TELEMETRY_NAME
        telemetry.mkdir()
        for index, partial in enumerate(partials):
            clean = partial.directory / TELEMETRY_NAME
            _take(clean, telemetry / f"{index:06d}.parquet", workspace)
        parts = [(partial.directory / QUARANTINE_NAME, partial.rows_read) for partial in partials]
        join_quarantine(parts, workspace.directory / QUARANTINE_NAME, scan.task.columns)
        for partial in partials:
            if partial.directory.parent == workspace.directory:
                shutil.rmtree(partial.directory)
    return conclude(request, workspace, scan, version, incidents)


def _take(source: Path, target: Path, workspace: Workspace) -> None:
    """Move a file of the workspace; copy one of an earlier task."""
    if source.parent.parent == workspace.directory:
        source.replace(target)
    else:
        shutil.copyfile(source, target)


def _source(
    request: Request, partials: Sequence[StoredPartial], parts: Sequence[Partition] = ()
) -> PartitionedSource:
    """Return all partitions as one source; ``Unreadable`` if their columns differ."""
    first = partials[0]
    expected = set(present_columns(first.header))
    for part in partials:
        if other := expected ^ set(present_columns(part.header)):
            column = min(other)
            holder, lacking = (first, part) if column in expected else (part, first)
            raise Unreadable(
                "partition_columns",
                f"Partition {holder.name} of {request.name} has column '{column}', and "
                f"{lacking.name} has not: write the same columns to all partitions.",
            )
    header = tuple(dict.fromkeys(name for part in partials for name in part.header))
    rows = sum(part.rows_read for part in partials)
    return PartitionedSource(
        Path(request.name), "parquet", header, rows, parts=tuple(parts), name=request.name
    )


def _in_one_pass(
    request: Request,
    parts: Sequence[Partition],
    partials: Sequence[StoredPartial],
    workspace: Workspace,
    incidents: Sequence[Incident] | None,
) -> DataReport:
    version = _version(partials)
    try:
        source = _source(request, partials, parts)
        scan = scan_file(task_of(request, source, workspace.directory))
    except Unreadable as error:
        raise unreadable(request, error, version) from error
    return conclude(request, workspace, scan, version, incidents)
