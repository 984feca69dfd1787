"""The best compression level of each row: the labels of the compression model.

Telemetry that measured ``throughput_gain_0`` ... ``throughput_gain_9`` gives them directly. Without
those columns a cost model is used, a pipeline whose stages overlap: compress, send, decompress.
For a burst of B Mbit, at level k::

    ratio_k  = 1 + (r - 1) * e_k                    r: hde_compression_ratio, seen at level 3
    speed_k  = c_k / (1 - h + h / HIT_SPEED_UP)     h: hde_delta_hit_rate
    rate_k   = min(speed_k, T * ratio_k, d_k)       T: throughput_mbps; the slowest stage decides
    time_k   = B / rate_k + FILL / speed_k + FILL / d_k + rtt / 2
    gain_k   = time_0 / time_k - 1,   time_0 = B / T + rtt / 2

A hit in the delta dictionary replaces a match search, which is why it speeds compression up. The
constants are round figures for zstd levels 1 to 9 on one core of about 3.5 GHz, on text-like state:
speeds fall by a factor of 8 from level 1 to 9 while the ratio rises by a tenth. Ties go to the
lower level.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.contract.columns import GAIN_COLUMNS
from dwcp_ml.contract.models import COMPRESSION_TYPES

BURST_MBIT: Final = 32.0
"""A burst of 4 MiB, in Mbit."""

FILL_MBIT: Final = 1.0
"""One zstd block of 128 KiB: the amount that passes the first stage before the last one starts."""

HIT_SPEED_UP: Final = 4.0
"""How much faster a dictionary hit passes the compressor than a search for a match."""

COMPRESS_MBPS: Final[Floats] = np.array(
    [3400.0, 2600.0, 2000.0, 1900.0, 900.0, 600.0, 500.0, 450.0, 420.0]
)
"""c_1 ... c_9: compression speed of one core, Mbit/s of original data."""

DECOMPRESS_MBPS: Final[Floats] = np.full(9, 10_000.0)
"""d_1 ... d_9: decompression speed of one core, Mbit/s of original data."""

EXCESS_RATIO: Final[Floats] = np.array([0.94, 0.97, 1.0, 1.01, 1.04, 1.07, 1.08, 1.10, 1.105])
"""e_1 ... e_9: (ratio_k - 1) over (ratio_3 - 1)."""


def compression_gains(frame: pd.DataFrame) -> tuple[Floats, str]:
    """Return the gain of every level in every row, (n, 10), and its source.

    A gain is the throughput over that at level 0, minus 1; the source is ``measured`` or
    ``cost_model``.
    """
    if set(GAIN_COLUMNS) <= set(frame.columns):
        measured = frame[list(GAIN_COLUMNS)].to_numpy(np.float64)
        if np.isfinite(measured).all():
            return measured, "measured"
    names = ("throughput_mbps", "rtt_ms", "hde_compression_ratio", "hde_delta_hit_rate")
    return cost_model_gains(*(frame[name].to_numpy(np.float64) for name in names)), "cost_model"


def cost_model_gains(
    throughput_mbps: Floats, rtt_ms: Floats, ratio: Floats, hit_rate: Floats
) -> Floats:
    """Return the gain of every level, (n, 10), by the cost model at the top of this file.

    All inputs have shape (n,). Level 0 gains 0; on a link that carries nothing every level does.
    """
    line = np.maximum(throughput_mbps, 1e-9)[:, np.newaxis]
    half_rtt = (rtt_ms / 2000.0)[:, np.newaxis]
    level_ratio = 1.0 + (ratio[:, np.newaxis] - 1.0) * EXCESS_RATIO
    hits = hit_rate[:, np.newaxis]
    speed = COMPRESS_MBPS / (1.0 - hits + hits / HIT_SPEED_UP)
    rate = np.minimum(np.minimum(speed, line * level_ratio), DECOMPRESS_MBPS)
    seconds = BURST_MBIT / rate + FILL_MBIT / speed + FILL_MBIT / DECOMPRESS_MBPS + half_rtt
    gains = np.zeros((len(ratio), 1 + len(COMPRESS_MBPS)))
    gains[:, 1:] = (BURST_MBIT / line + half_rtt) / seconds - 1.0
    gains[throughput_mbps <= 0.0] = 0.0
    return gains


def best_level(gains: Floats) -> Ints:
    """Return the level with the largest gain in every row; ties go to the lower level."""
    return np.asarray(gains.argmax(axis=1), np.int64)


def compression_type(level: Ints, hit_rate: Floats, hit_rate_cutoff: float) -> Ints:
    """Return 0 none, 1 hde or 2 zstd.

    Level 0 is ``none``; a delta hit rate above the cut-off makes ``hde`` worth it, else ``zstd``.
    """
    none, hde, zstd = range(len(COMPRESSION_TYPES))
    chosen = np.where(hit_rate > hit_rate_cutoff, hde, zstd)
    return np.where(level == 0, none, chosen).astype(np.int64)
