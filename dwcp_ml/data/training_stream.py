"""The training examples of telemetry that does not fit into memory, read from a file in buffers.

What is fitted (splits, gaps, references of a series) is fitted on the sample, see ``sampling.py``;
the stream holds the examples of all other rows of the training split as well, and none of the
others. They are read in blocks of windows that follow each other; the order of the blocks is
random, and the training loop mixes the examples of a buffer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Array, Floats, Floats32, Ints, Mask
from dwcp_ml.contract.columns import GAIN_COLUMNS
from dwcp_ml.contract.errors import ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import (
    BandwidthData,
    CompressionData,
    DataSettings,
    Examples,
    LatencyData,
    ModelData,
)
from dwcp_ml.contract.models import BANDWIDTH, COMPRESSION
from dwcp_ml.data.features import bandwidth_class, feature_matrix, series_index
from dwcp_ml.data.oracle import best_level, compression_gains, compression_type
from dwcp_ml.data.reading import ROW_NUMBER, load_chunks
from dwcp_ml.data.series_rows import Rows, RunWindows, SeriesRows
from dwcp_ml.data.windows import one_row_a_node

CHUNK_ROWS: Final = 1 << 18
"""Rows of the telemetry in memory while the file is written."""

BLOCK: Final = 256
"""Windows of one block: about two pages of the file for the bandwidth model."""

BUFFER_BLOCKS: Final = 256
"""Maximum blocks of a buffer: 65,536 examples, 18 MB of inputs for the bandwidth model."""

Progress = Callable[[float], None]


@dataclass(frozen=True)
class TrainingStream:
    """The examples of a training split, as ``contract.examples.ExampleStream`` defines it."""

    digest: str
    bytes_on_disk: int
    _rows: SeriesRows
    _windows: RunWindows
    _examples: Callable[[Floats32, Ints], Examples]

    def __len__(self) -> int:
        return len(self._windows)

    def buffers(self, seed: int, epoch: int, count: int) -> Iterator[Examples]:
        """Yield the examples of an epoch; see ``contract.examples.ExampleStream.buffers``."""
        size = -(-min(count, len(self)) // BLOCK)
        blocks = self._blocks(seed, np.arange((epoch - 1) * size, epoch * size))
        for part in np.array_split(blocks, -(-size // BUFFER_BLOCKS)):
            windows = (np.sort(part)[:, np.newaxis] * BLOCK + np.arange(BLOCK)).ravel()
            rows = self._windows.rows(windows[windows < len(self)])
            yield self._examples(self._rows.read(rows), self._rows.series_of(rows[:, 0]))

    def _blocks(self, seed: int, places: Ints) -> Ints:
        """Return the blocks at places of an endless order: one permutation of all after another."""
        blocks = -(-len(self) // BLOCK)
        turn, place = np.divmod(places, blocks)
        chosen = np.empty_like(places)
        for number in np.unique(turn):
            order = np.arange(blocks, dtype=np.uint32)
            np.random.default_rng([seed, int(number)]).shuffle(order)
            chosen[turn == number] = order[place[turn == number]]
        return chosen


def training_stream(
    path: Path,
    data: ModelData,
    settings: DataSettings,
    directory: Path,
    progress: Progress = lambda _share: None,
) -> TrainingStream:
    """Write the rows of the training split to a temporary file, and return their examples.

    Parameters
    ----------
    path
        Clean telemetry; its rows are read twice.
    data
        The examples of the whole or of a sample, by ``examples.prepare``, with their settings.
    directory
        Where the disk space is taken, as long as the stream is used: see ``SeriesRows``.

    Raises
    ------
    TrainingFailed
        If there is no space, rows of a series are not in the order of time, or no example is left.
    """
    reader = _READERS[type(settings)](data, settings)
    expected, done = 2 * (data.use.rows if data.use else 1), 0

    def chunks(columns: Iterable[str]) -> Iterator[pd.DataFrame]:
        nonlocal done
        for frame in load_chunks(path, list(columns), CHUNK_ROWS):
            yield frame
            done += len(frame)
            progress(min(1.0, done / expected))

    counts = np.zeros(0, np.int64)
    for part in reader.rows(chunks(reader.key_columns), counting=True):
        added = np.bincount(part.series, minlength=len(reader.numbers))
        counts = added + np.pad(counts, (0, len(added) - len(counts)))
    digest = hashlib.blake2b(digest_size=32)
    rows = SeriesRows(directory, counts, reader.width)
    max_step = reader.max_step()
    for part in reader.rows(chunks(reader.columns)):
        for array in (part.series, part.timestamp, part.values, part.usable):
            digest.update(np.ascontiguousarray(array).data)
        rows.add(part, max_step)
    windows = rows.windows(reader.length)
    if not len(windows):
        raise TrainingFailed(
            f"{data.spec.name} has no example in its training split: provide telemetry of a longer "
            "time or of more links.",
            code=ErrorCode.TOO_FEW,
            subject="train",
        )
    return TrainingStream(digest.hexdigest(), rows.size, rows, windows, reader.examples)


@dataclass
class _Reader:
    """How chunks of telemetry become rows, and windows of rows examples of one model.

    ``numbers`` are the series met so far: those of the sample first, as ``data`` numbers them.
    """

    data: ModelData
    settings: DataSettings
    numbers: dict[str, int] = field(init=False)
    _held_out: Ints = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = {name: number for number, name in enumerate(self.data.series_names)}
        others = (self.data.validation, self.data.test)
        keys = [_key(examples.timestamp, examples.series) for examples in others]
        self._held_out = np.concatenate(keys)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns, beside the keys, that are needed to count the rows."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are needed."""
        return self.data.spec.needed_columns

    @property
    def length(self) -> int:
        """The rows of an example."""
        return 1

    @property
    def width(self) -> int:
        """The values of a row."""
        return len(self.data.spec.features)

    def max_step(self) -> Floats:
        """Return the longest step of each series that is no gap, seconds, (k,)."""
        steps, known = np.full(len(self.numbers), self.data.cadence_seconds), self.data.series_names
        steps[: len(known)] = self.data.step(np.arange(len(known)))
        return self.data.gap_factor * steps

    def rows(self, frames: Iterable[pd.DataFrame], *, counting: bool = False) -> Iterator[Rows]:
        """Yield the rows of the training split; without their values if they are counted only."""
        for frame in frames:
            timestamp = frame["timestamp"].to_numpy(np.float64)
            series = self._numbered(frame)
            kept = np.flatnonzero(self._in_training(timestamp, series))
            yield self.rows_of(frame.iloc[kept], series[kept], counting=counting)

    def rows_of(self, frame: pd.DataFrame, series: Ints, *, counting: bool) -> Rows:
        """Return the rows of a chunk of the training split."""
        nothing = np.empty((len(frame), 0), np.float32)
        values = nothing if counting else self.values(frame)
        timestamp = frame["timestamp"].to_numpy(np.float64)
        return Rows(series, timestamp, values, self.usable(series))

    def values(self, frame: pd.DataFrame) -> Floats32:
        """Return what is stored of each row, float32 (n, width)."""
        return feature_matrix(frame, self.data.spec.features)

    def usable(self, series: Ints) -> Mask:
        """Return which rows may be part of an example, (n,)."""
        return np.ones(len(series), np.bool_)

    def examples(self, values: Floats32, series: Ints) -> Examples:
        """Return the examples of windows, (n, length, width), of these series, (n,)."""
        raise NotImplementedError

    def reference(self, series: Ints) -> Floats:
        """Return the sample's reference of each row's series; NaN for one not in it."""
        known = np.asarray(self.data.references, np.float64)
        return np.append(known, np.nan)[np.minimum(series, len(known))]

    def _numbered(self, frame: pd.DataFrame) -> Ints:
        index, names = series_index(frame, self.data.spec.series_key)
        numbers = [self.numbers.setdefault(name, len(self.numbers)) for name in names]
        return np.array(numbers, np.int64)[index]

    def _in_training(self, timestamp: Floats, series: Ints) -> Mask:
        if "validation_starts" in self.data.facts:
            starts: float = self.data.facts["validation_starts"]
            return timestamp < starts
        return ~np.isin(_key(timestamp, series), self._held_out)


def _key(timestamp: Floats, series: Ints) -> Ints:
    """Return a number that only rows of one time, to the millisecond, and one series share."""
    return (series << 42) + np.rint(1000.0 * timestamp).astype(np.int64)


class _Bandwidth(_Reader):
    settings: BandwidthData

    @property
    def length(self) -> int:
        return self.settings.window + 1

    @property
    def classifies(self) -> bool:
        return self.data.form != BANDWIDTH.forms[0].name

    def usable(self, series: Ints) -> Mask:
        return np.isfinite(self.reference(series)) if self.classifies else super().usable(series)

    def examples(self, values: Floats32, series: Ints) -> Examples:
        truth: Array = values[:, -1, BANDWIDTH.features.index("throughput_mbps")].astype(np.float64)
        if self.classifies:
            shares = self.settings.good_share, self.settings.degraded_share
            truth = bandwidth_class(truth, self.reference(series), *shares)
        return _examples(values[:, :-1], truth, series)


class _Compression(_Reader):
    settings: CompressionData

    @property
    def columns(self) -> tuple[str, ...]:
        measured = self.data.label_source == "measured"
        return (*super().columns, *(GAIN_COLUMNS if measured else ()))

    @property
    def width(self) -> int:
        return super().width + len(GAIN_COLUMNS)

    def max_step(self) -> Floats:
        return np.full(len(self.numbers), np.inf)

    def rows_of(self, frame: pd.DataFrame, series: Ints, *, counting: bool) -> Rows:
        """Return the rows as those of one series in the order of the file: each is an example."""
        rows = super().rows_of(frame, np.zeros_like(series), counting=counting)
        order = frame[ROW_NUMBER].to_numpy(np.float64)
        return Rows(rows.series, order, rows.values, rows.usable)

    def values(self, frame: pd.DataFrame) -> Floats32:
        gains, _ = compression_gains(frame)
        return np.hstack([super().values(frame), gains.astype(np.float32)])

    def examples(self, values: Floats32, series: Ints) -> Examples:
        inputs, gains = np.split(values[:, 0], [len(COMPRESSION.features)], axis=1)
        truth = best_level(gains.astype(np.float64))
        if self.data.form != COMPRESSION.forms[0].name:
            hit_rate = inputs[:, COMPRESSION.features.index("hde_delta_hit_rate")]
            cutoff = self.settings.hde_hit_rate_cutoff
            truth = compression_type(truth, hit_rate.astype(np.float64), cutoff)
        return _examples(inputs, truth, series, gains.astype(np.float64))


class _Latency(_Reader):
    """Windows without an episode only: the autoencoder is trained on no others."""

    settings: LatencyData

    @property
    def labels(self) -> tuple[str, ...]:
        return ("is_high_latency",) if self.data.label_source == "labelled" else ()

    @property
    def key_columns(self) -> tuple[str, ...]:
        return self.columns

    @property
    def columns(self) -> tuple[str, ...]:
        return (*super().columns, *self.labels)

    @property
    def length(self) -> int:
        return self.settings.window

    def rows(self, frames: Iterable[pd.DataFrame], *, counting: bool = False) -> Iterator[Rows]:
        return super().rows(self._observations(frames), counting=counting)

    def _observations(self, frames: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Yield one row a node and observation; the last one of each node waits for its peers."""
        waiting: pd.DataFrame | None = None
        spans = dict(zip(self.data.series_names, np.asarray(self.data.together), strict=True))
        for frame in frames:
            every, _ = one_row_a_node(pd.concat([waiting, frame]), spans)
            last = ~every.duplicated("node_id", keep="last")
            waiting = every[last]
            yield every[~last].reset_index(drop=True)
        if waiting is not None:
            yield waiting.reset_index(drop=True)

    def rows_of(self, frame: pd.DataFrame, series: Ints, *, counting: bool) -> Rows:  # noqa: ARG002
        rows = super().rows_of(frame, series, counting=False)
        limit = np.zeros(len(frame)) if self.labels else self.reference(series)
        value: Floats = frame[(*self.labels, "consensus_latency_ms")[0]].to_numpy(np.float64)
        normal: Mask = np.less_equal(value, limit)  # false where the limit is unknown
        return Rows(rows.series, rows.timestamp, rows.values, normal)

    def examples(self, values: Floats32, series: Ints) -> Examples:
        return _examples(values[:, :, 0], np.zeros(len(values), np.bool_), series)


def _examples(
    inputs: Floats32, truth: Array, series: Ints, gains: Floats | None = None
) -> Examples:
    """Return examples without their times, which the file does not hold."""
    nothing = np.full(len(truth), -1, np.int64)
    return Examples(inputs, truth, np.full(len(truth), np.nan), series, nothing, gains)


_READERS: Final[dict[type[DataSettings], type[_Reader]]] = {
    BandwidthData: _Bandwidth,
    CompressionData: _Compression,
    LatencyData: _Latency,
}
