"""A sample of a file's rows of a given size, in blocks that windows fit into.

A block holds the rows of one node within ``BLOCK_STEPS`` usual steps. Blocks are drawn at random
with equal probability and without replacement, by the smallest hashes of their names: bottom-k
sampling (Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches"), cut off where the
number of rows is reached. All peers of a node stay together, so that the observations of its
latency are complete, and a row's chance to be drawn depends on neither its values nor its time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Ints, Mask
from dwcp_ml.data import convert
from dwcp_ml.data.source import Batch, TelemetrySource

BLOCK_STEPS: Final = 200
"""Ten windows of the latency model, 20 of the bandwidth model: a block that has no neighbour loses
about 10 and 5 % of its windows at its start."""

COLUMNS: Final = ("timestamp", "node_id")


@dataclass(frozen=True)
class RowSample:
    """Blocks of rows, by the hashes of their names: those below ``limit``.

    ``left_out`` is how many rows of the file are in none of them.
    """

    block_ms: int
    seed: int
    limit: int
    left_out: int

    def holds(self, batch: Batch) -> Mask:
        """Return which rows of a batch, with ``COLUMNS``, are in the sample."""
        hashes, block = _blocks(batch, self.block_ms, self.seed)
        chosen: Mask = (hashes < np.uint64(self.limit))[block]
        return chosen


def draw_rows(
    source: TelemetrySource, max_rows: int, step_seconds: float, seed: int
) -> RowSample | None:
    """Return a sample of the clean telemetry; ``None`` if it has no more rows than the maximum.

    The sample is empty if no block is small enough.

    Parameters
    ----------
    step_seconds
        The usual step between rows of a link.
    """
    block_ms = max(1, round(BLOCK_STEPS * step_seconds * convert.MILLISECONDS))
    rows = _rows_of_blocks(source.scan(COLUMNS), block_ms, seed)
    hashes = np.array(sorted(rows), np.uint64)
    total = np.cumsum([rows[int(one)] for one in hashes], dtype=np.int64)
    if len(total) == 0 or total[-1] <= max_rows:
        return None
    kept = int(np.searchsorted(total, max_rows, "right"))
    limit = int(hashes[kept])
    return RowSample(block_ms, seed, limit, int(total[-1] - (total[kept - 1] if kept else 0)))


def _rows_of_blocks(batches: Iterable[Batch], block_ms: int, seed: int) -> dict[int, int]:
    """Return the number of rows of each block, by its hash."""
    rows: dict[int, int] = {}
    for batch in batches:
        hashes, block = _blocks(batch, block_ms, seed)
        counts = np.bincount(block, minlength=len(hashes)).tolist()
        for one, count in zip(hashes.tolist(), counts, strict=True):
            rows[one] = rows.get(one, 0) + count
    return rows


def _blocks(batch: Batch, block_ms: int, seed: int) -> tuple[Array, Ints]:
    """Return the hashes of the blocks of a batch, uint64 (k,), and the block of each row, (n,)."""
    node = convert.words(batch.cells["node_id"])
    moment = convert.times(batch.cells["timestamp"]).values // block_ms
    count = max(1, len(node.words))
    pairs, block = np.unique(moment * count + node.indices, return_inverse=True)
    moments, nodes = np.divmod(pairs, count)
    hashes = [
        _hash(f"{seed}:{when}:{node.words[which]}")
        for when, which in zip(moments.tolist(), nodes.tolist(), strict=True)
    ]
    return np.array(hashes, np.uint64), block


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
