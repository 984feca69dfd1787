"""The inputs on which exports are compared: the test split, and 10,000 random and extreme ones.

Where the contract bounds a column, its bounds apply. Elsewhere ``CEILINGS`` is the largest
value: a generous physical limit, well above anything a DWCP node reports.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.columns import Column, ColumnType, column_of_feature
from dwcp_ml.contract.models import ModelSpec

CEILINGS: Final = {
    "rtt_ms": 60_000.0,  # a minute: the cap of TCP's timer is 60 s or more (RFC 6298)
    "jitter_ms": 60_000.0,  # can't exceed the round trip it varies
    "throughput_mbps": 800_000.0,  # 800GBASE-R, the fastest standard Ethernet port
    "retransmits": 1e7,  # every packet of a 10 Gbit/s link for 12 s
    "congestion_window": 2.0**30,  # largest TCP window with scaling (RFC 7323)
    "hde_compression_ratio": 1000.0,  # zlib can't pass 1032 : 1
    "amst_transfer_rate": 800_000.0,
    "error_budget_burn_rate": 1000.0,  # 100 % errors against a 99.9 % objective
    "failure_rate": 3600.0,  # one failure a second
    "consensus_latency_ms": 600_000.0,  # ten minutes without a commit
}
"""Largest value of a probe, in the unit of the column, for columns the contract leaves open."""

MIN_DISTANCE: Final = 1e-3
"""Distance from the minimum at which logarithmic draws start, and at which 0 is excluded."""

_SHARES: Final = (("uniform", 0.25), ("log", 0.35), ("corner", 0.1), ("constant", 0.1))
"""Shares of the kinds of draws; the rest, 0.2, mixes the features of rows of the test split."""


def column_range(column: Column) -> tuple[float, float]:
    """Return the least and the greatest value of a probe of ``column``.

    Examples
    --------
    >>> from dwcp_ml.contract.columns import COLUMNS
    >>> column_range(COLUMNS["uptime_pct"]), column_range(COLUMNS["link_type"])
    ((0.0, 100.0), (0.0, 3.0))
    """
    if column.codes:
        codes = [code for _, code in column.codes]
        return float(min(codes)), float(max(codes))
    low = 0.0 if column.minimum is None else float(column.minimum)
    high = CEILINGS[column.name] if column.maximum is None else float(column.maximum)
    return (low + MIN_DISTANCE if column.exclusive_minimum else low), high


def probe_inputs(
    spec: ModelSpec, test_inputs: NDArray[np.float32], *, n: int = 10_000, seed: int = 42
) -> NDArray[np.float32]:
    """Return the test split followed by ``n`` random and extreme inputs within the contract.

    Parameters
    ----------
    spec : ModelSpec
        The model; its columns say what is within the contract.
    test_inputs : float32 of shape (m, *spec.input.shape)
        The whole test split; ``m`` may be 0.

    Returns
    -------
    float32 of shape (m + n, *spec.input.shape)
        A quarter of the ``n`` is uniform, a third logarithmic, a tenth lies in corners (every
        feature at an end of its range), a tenth is constant over the window, a fifth takes each
        feature from another row of the test split. Codes and counts are whole numbers.
    """
    rng = np.random.default_rng(seed)
    columns = [column_of_feature(feature) for feature in spec.features]
    shape = (n, spec.window, len(columns))
    kinds = rng.choice(
        len(_SHARES) + 1, size=n, p=[*(s for _, s in _SHARES), 1 - sum(s for _, s in _SHARES)]
    )
    drawn = np.empty(shape)
    for position, column in enumerate(columns):
        drawn[:, :, position] = _draw(rng, column, kinds, shape[:2])
    constant = kinds == 3
    drawn[constant] = drawn[constant][:, :1]
    if len(test_inputs):
        _mix_rows(rng, drawn, kinds == len(_SHARES), test_inputs.reshape(-1, *shape[1:]))
    probes = drawn.astype(np.float32).reshape(n, *spec.input.shape)
    return np.concatenate([test_inputs.astype(np.float32, copy=False), probes])


def _draw(
    rng: np.random.Generator, column: Column, kinds: NDArray[np.int64], shape: tuple[int, ...]
) -> NDArray[np.float64]:
    """Return draws of one column, shape ``(n, window)``; row ``i`` is drawn as ``kinds[i]``."""
    low, high = column_range(column)
    share = rng.random(shape)
    uniform = low + (high - low) * share
    values = low + MIN_DISTANCE * (1 + (high - low) / MIN_DISTANCE) ** share - MIN_DISTANCE
    evenly = kinds == 0
    if column.codes:
        evenly = np.ones_like(evenly)  # a code has no order of magnitude
    values = np.where(evenly[:, None], uniform, values)
    values = np.where((kinds == 2)[:, None], np.where(share < 0.5, low, high), values)
    if column.codes or column.kind is ColumnType.INTEGER:
        values = np.rint(values)
    return np.clip(values, low, high)


def _mix_rows(
    rng: np.random.Generator,
    drawn: NDArray[np.float64],
    chosen: NDArray[np.bool_],
    known: NDArray[np.float32],
) -> None:
    """Overwrite the chosen rows: each feature comes from a row of the test split of its own."""
    count, features = int(chosen.sum()), drawn.shape[2]
    picks = rng.integers(len(known), size=(count, features))
    for feature in range(features):
        drawn[chosen, :, feature] = known[picks[:, feature], :, feature]
