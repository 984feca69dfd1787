"""The clean copy and the quarantine: written beside their final names, moved on success."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from dwcp_ml.contract.arrays import Mask
from dwcp_ml.contract.columns import COLUMNS, ColumnType
from dwcp_ml.data.arrow import array_of, strings_of, values_of
from dwcp_ml.data.checks import Checked
from dwcp_ml.data.convert import Words
from dwcp_ml.data.source import Batch, Malformed

TELEMETRY_NAME: Final = "telemetry.parquet"
QUARANTINE_NAME: Final = "quarantine.csv"
INCIDENTS_NAME: Final = "incidents.json"
REPORT_NAME: Final = "validation.json"


@dataclass
class Workspace:
    """A temporary directory for half-written files; nothing of it is left behind.

    ``output`` is their final directory; ``None`` writes none.
    """

    output: Path | None
    directory: Path = field(init=False)
    _created: list[Path] = field(default_factory=list)

    def __enter__(self) -> Workspace:
        if self.output is not None:
            missing = [p for p in (self.output, *self.output.parents) if not p.exists()]
            self.output.mkdir(parents=True, exist_ok=True)
            self._created = missing
        self.directory = Path(tempfile.mkdtemp(prefix=".validate-", dir=self.output))
        return self

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in self._created:
            if any(path.iterdir()):
                break
            path.rmdir()

    def commit(self, texts: dict[str, str]) -> None:
        """Move the files to their final names: an old report goes first, the new one comes last.

        ``texts`` are further files by name; ``REPORT_NAME`` must be among them.
        """
        if self.output is None:
            return
        for name, text in texts.items():
            (self.directory / name).write_text(text, encoding="utf-8")
        for stale in (REPORT_NAME, INCIDENTS_NAME):
            (self.output / stale).unlink(missing_ok=True)
        names = sorted(path.name for path in self.directory.iterdir())
        for name in sorted(names, key=lambda name: name == REPORT_NAME):
            new, earlier = self.directory / name, self.output / name
            if earlier.is_dir():  # the partitions of another dataset
                shutil.rmtree(earlier)
            elif new.is_dir():
                earlier.unlink(missing_ok=True)
            new.replace(earlier)


@dataclass
class CleanWriter:
    """Writes clean rows to Parquet and quarantined ones, unchanged, to CSV."""

    directory: Path
    columns: Sequence[str]

    def __post_init__(self) -> None:
        import pyarrow.parquet as pq

        self._clean = pq.ParquetWriter(
            self.directory / TELEMETRY_NAME,
            pa.schema([(name, _parquet_type(name)) for name in self.columns]),
            compression="zstd",
            compression_level=1,
            # Measurements hardly repeat: a dictionary of them takes time and saves no space.
            use_dictionary=[name for name in self.columns if _is_word(name)],
        )
        self._schema = _quarantine_schema(self.columns)
        self._quarantine = pacsv.CSVWriter(self.directory / QUARANTINE_NAME, self._schema)
        # Compression releases the GIL: it runs while the next batch is checked.
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def write(self, raw: Batch, checked: Checked) -> None:
        """Write one batch: its good rows, and its bad ones with the codes of their defects."""
        good = None if not checked.bad.any() else ~checked.bad
        arrays = [_parquet_array(name, checked.values[name], good) for name in self.columns]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._clean.schema)
        self._wait()
        self._pending = self._thread.submit(self._clean.write_batch, batch)
        if good is not None:
            self._write_quarantined(raw, checked)

    def _write_quarantined(self, raw: Batch, checked: Checked) -> None:
        rows = np.flatnonzero(checked.bad)
        codes = _joined_codes([(code, mask[rows]) for code, mask in checked.reasons])
        chosen = array_of(rows)
        cells = [_text(raw.cells[name].take(chosen)) for name in self.columns]
        arrays = [array_of(checked.row[rows]), codes, *cells]
        nothing = pa.nulls(len(rows), pa.string())
        self._quarantine.write_batch(
            pa.RecordBatch.from_arrays([*arrays, nothing], schema=self._schema)
        )

    def write_malformed(self, malformed: Sequence[Malformed]) -> None:
        """Write rows that have too many or too few cells, as text."""
        nothing = pa.nulls(len(malformed), pa.string())
        codes = strings_of(["malformed_row"] * len(malformed))
        numbers = array_of(np.array([bad.row for bad in malformed], np.int64))
        text = strings_of([bad.text for bad in malformed])
        arrays = [numbers, codes, *([nothing] * len(self.columns)), text]
        self._quarantine.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Finish both files."""
        try:
            self._wait()
            self._clean.close()
        finally:
            self._thread.shutdown()
            self._quarantine.close()

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()


def _quarantine_schema(columns: Sequence[str]) -> Any:
    fields = [("row", pa.int64()), ("code", pa.string())]
    fields += [(name, pa.string()) for name in columns]
    return pa.schema([*fields, ("malformed_text", pa.string())])


def join_quarantine(
    parts: Sequence[tuple[Path, int]], target: Path, columns: Sequence[str]
) -> None:
    """Write the quarantined rows of partitions to one file, their rows numbered throughout.

    ``parts`` are the file of each partition, and how many rows the partition has in all.
    """
    schema, offset = _quarantine_schema(columns), 0
    as_written = pacsv.ConvertOptions(
        column_types=schema,
        include_columns=schema.names,
        null_values=[""],
        strings_can_be_null=True,
        quoted_strings_can_be_null=False,
    )
    with pacsv.CSVWriter(target, schema) as joined:
        for path, rows in parts:
            parsing = pacsv.ParseOptions(newlines_in_values=True)
            for batch in pacsv.open_csv(path, None, parsing, as_written):
                numbers = array_of(values_of(batch.column(0)) + offset)
                joined.write_batch(batch.set_column(0, schema.field(0), numbers))
            offset += rows


def _is_word(name: str) -> bool:
    return COLUMNS[name].kind in (ColumnType.KEY, ColumnType.CATEGORY)


def _parquet_type(name: str) -> Any:
    if _is_word(name):
        return pa.dictionary(pa.int32(), pa.string())
    is_time = COLUMNS[name].kind is ColumnType.TIMESTAMP
    return pa.timestamp("ms", "UTC") if is_time else pa.float64()


def _parquet_array(name: str, values: Any, good: Any) -> Any:
    if isinstance(values, Words):
        indices = (values.indices if good is None else values.indices[good]).astype(np.int32)
        return pa.DictionaryArray.from_arrays(
            array_of(indices, mask=indices < 0), strings_of(values.words)
        )
    clean = values if good is None else values[good]
    if COLUMNS[name].kind is ColumnType.TIMESTAMP:
        return array_of(clean).cast(pa.timestamp("ms", "UTC"))
    return array_of(clean)


def _joined_codes(reasons: Sequence[tuple[str, Mask]]) -> Any:
    """Return the codes that hold for each row, joined by ``;``, without a loop over the rows."""
    marks = np.stack([mask for _, mask in reasons], axis=1)
    kinds, index = np.unique(np.packbits(marks, axis=1), axis=0, return_inverse=True)
    words = [
        ";".join(
            code for (code, _), mark in zip(reasons, np.unpackbits(kind), strict=False) if mark
        )
        for kind in kinds
    ]
    return strings_of(words).take(array_of(index.reshape(-1)))


def _text(array: Any) -> Any:
    plain = array.dictionary_decode() if pa.types.is_dictionary(array.type) else array
    try:
        return plain.cast(pa.string())
    except pa.ArrowException:
        return strings_of(["" if cell is None else str(cell) for cell in plain.to_pylist()])
