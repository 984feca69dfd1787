"""The partitions of a data set as one source: their rows follow each other, numbered throughout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dwcp_ml.data.source import Batch, Progress, TelemetrySource, Unreadable, open_source
from dwcp_ml.storage.partitions import Partition, parquet_files


@dataclass
class PartitionedSource(TelemetrySource):
    """Several Parquet files with the same columns of the contract; one at a time is open."""

    parts: tuple[Partition, ...] = ()
    name: str = ""

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name

    def scan(
        self, columns: Sequence[str], *, tolerant: bool = False, progress: Progress | None = None
    ) -> Iterator[Batch]:
        """Stream the raw cells of some columns of all files; see ``TelemetrySource.scan``."""
        done = 0
        for index, part in enumerate(self.parts):
            with part.opened() as path:
                source = open_partition(path, part)
                for batch in source.scan(columns, tolerant=tolerant):
                    yield replace(batch, row=batch.row + done)
                done += source.rows or 0
            if progress:
                progress((index + 1) / len(self.parts))


def open_partition(path: Path, part: Partition) -> TelemetrySource:
    """Open one file of a data set.

    Raises
    ------
    Unreadable
        If it can't be read, or is not Parquet.
    """
    source = open_source(path)
    if source.format != "parquet":
        raise Unreadable("binary", f"{path} is no Parquet file: a data set has no other files.")
    return source.with_constants(part.hive_values)


def open_telemetry(path: Path) -> TelemetrySource:
    """Open a telemetry file, or all Parquet files below a directory.

    Raises
    ------
    Unreadable
        If it can't be read.
    """
    parts = parquet_files(path) if path.is_dir() else ()
    if not parts:
        return open_source(path)
    header = open_partition(path / parts[0].name, parts[0]).header
    return PartitionedSource(path, "parquet", header, parts=parts, name=str(path))
