"""The tasks that validate a partitioned data set on Kubeflow: list, validate groups, merge.

Each group is a contiguous part of the list of partitions, less those whose dates are outside the
data window. The digest of the list and the time,
which decides what lies in the future, go from the first task to the others, so that all of them
validate the same files by the same rules.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.record import Record
from dwcp_ml.contract.records import DataReport
from dwcp_ml.data.partials import StoredPartial
from dwcp_ml.data.partition_validation import merge_partitions, validate_partition
from dwcp_ml.data.validation_report import Request
from dwcp_ml.files import atomic_directory, make_directory
from dwcp_ml.storage.addresses import without_digest, without_query
from dwcp_ml.storage.fetch import fetched
from dwcp_ml.storage.partitions import Partition, SkippedFiles, partitions_of
from dwcp_ml.training_run.dataset import check_digests, files_to_read, with_addresses
from dwcp_ml.training_run.options import RunOptions


class Group(Record):
    """One of the groups into which the partitions of a data set are divided."""

    index: int = Field(ge=0)
    groups: int = Field(ge=1, description="number of groups")
    digest: str = Field(description="md5 of the names of all partitions of all groups")
    now: float = Field(description="epoch seconds; rows over a day later are quarantined")
    skipped: SkippedFiles | None = Field(
        default=None, description="files that are in no group: their dates are outside the window"
    )

    def of(self, parts: Sequence[Partition]) -> Sequence[Partition]:
        """Return the partitions of the group."""
        first, end = (len(parts) * k // self.groups for k in (self.index, self.index + 1))
        return parts[first:end]


def list_groups(options: RunOptions, groups: int) -> list[Group]:
    """Divide the partitions of the telemetry into groups.

    Raises
    ------
    UsageError
        If the address is empty, or names one file.
    DataRefused
        If there are none.
    """
    (parts, skipped), now = _partitions(options), time.time()
    digest, count = _digest_of(part.name for part in parts), min(groups, len(parts))
    return [
        Group(index=k, groups=count, digest=digest, now=now, skipped=skipped) for k in range(count)
    ]


def _partitions(options: RunOptions) -> tuple[tuple[Partition, ...], SkippedFiles | None]:
    address = without_digest(options.data_path)[0]
    parts = partitions_of(address) if address else None
    if parts is None:
        raise UsageError(
            f"This pipeline validates partitions, and '{without_query(address)}' is no data set: "
            "name a directory, a prefix that ends in / or a glob, or compile the pipeline without "
            "--partitions.",
            code=ErrorCode.UNSUPPORTED,
            subject="data_path",
        )
    return files_to_read(options.data_path, parts, options.data_window)


def validate_group(options: RunOptions, group: Group, output: Path) -> int:
    """Validate the partitions of a group; each gets a directory in ``output``.

    Returns
    -------
    int
        The number of rows.

    Raises
    ------
    DataRefused
        If a partition breaks the contract, or the list of partitions changed.
    """
    (parts, _), rows = _partitions(options), 0
    _check_list((part.name for part in parts), group, options)
    with atomic_directory(output) as staging:
        for number, part in enumerate(group.of(parts)):
            directory = staging / f"{number:06d}"
            make_directory(directory)
            name = without_query(part.address)
            request = Request(name, output=directory, **_choices(options, group))
            partial = validate_partition(request, part, directory)
            StoredPartial.write(directory, partial)
            rows += partial.rows
    return rows


def merge_groups(
    options: RunOptions, group: Group, paths: Sequence[Path], output: Path
) -> DataReport:
    """Merge the validated groups at ``paths`` to one dataset in the directory ``output``.

    ``group`` is any of them: what it states of the whole data set is used.

    Raises
    ------
    DataRefused
        If the data break the contract, or their partitions can't be merged.
    """
    directories = [path for each in paths for path in sorted(each.iterdir())]
    names = sorted(StoredPartial.find(path).name for path in directories)
    _check_list(names, group, options)
    address, md5 = without_digest(options.data_path)
    expected = dict(without_digest(each) for each in (options.incidents_path,) if each)
    with fetched(*expected) as files:
        check_digests(expected, files)
        report = merge_partitions(
            without_query(address),
            directories,
            expected_md5=md5,
            incidents_path=next(iter(files.values()), None),
            output=output,
            **_choices(options, group),
        )
        return with_addresses(report, files, output)


def _choices(options: RunOptions, group: Group) -> dict[str, Any]:
    return {
        "specs": options.specs(),
        "packet_loss_unit": options.packet_loss_unit,
        "congestion_window_unit": options.congestion_window_unit,
        "now": group.now,
        "window": options.data_window,
        "skipped": group.skipped,
    }


def _digest_of(names: Iterable[str]) -> str:
    return hashlib.md5("\n".join(names).encode(), usedforsecurity=False).hexdigest()


def _check_list(names: Iterable[str], group: Group, options: RunOptions) -> None:
    if _digest_of(names) != group.digest:
        address = without_query(without_digest(options.data_path)[0])
        raise DataRefused(
            f"The files of {address} changed while they were validated: run the pipeline again "
            "when all of them are there.",
            code=ErrorCode.CHANGED,
            subject=address,
        )
