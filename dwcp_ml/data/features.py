"""The input features of a model, unscaled, in the units of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd

from dwcp_ml.contract.arrays import Floats, Floats32, Ints, Mask
from dwcp_ml.contract.columns import COLUMNS, column_of_feature
from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data.tally import shown

REFERENCE_QUANTILE: Final = 0.95
"""The reference throughput of a link: this quantile of its training rows."""


def category_codes(column: str, words: pd.Series[Any]) -> Floats32:
    """Return the contract's code of each word of a category; other words are ``DataRefused``."""
    codes = words.map(dict(COLUMNS[column].codes))
    unknown = words[codes.isna()]
    if len(unknown):
        allowed = ", ".join(COLUMNS[column].categories)
        raise DataRefused(
            f"Column '{column}' holds '{shown(unknown.iloc[0])}': allowed are {allowed}; "
            "run `dwcp-ml data validate` to quarantine such rows.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=column,
        )
    return np.asarray(codes, np.float32)


def feature_matrix(frame: pd.DataFrame, features: Sequence[str]) -> Floats32:
    """Return the features of every row of ``reading.load``, float32 of shape (n, len(features)).

    ``link_type_encoded`` is the code of column ``link_type``.
    """
    matrix = np.empty((len(frame), len(features)), np.float32)
    for position, feature in enumerate(features):
        column = column_of_feature(feature)
        values = frame[column.name]
        coded = bool(column.codes)
        matrix[:, position] = category_codes(column.name, values) if coded else values.to_numpy()
    return matrix


def series_index(frame: pd.DataFrame, key: Sequence[str]) -> tuple[Ints, tuple[str, ...]]:
    """Return the index of each row's series, and the name of each series.

    The name of a link is ``node->peer``, that of a node its own. Names are in ascending order of
    their keys.
    """
    groups = frame.groupby(list(key), sort=True)
    keys = groups.size().index.to_frame().astype(str)
    names = tuple("->".join(words) for words in keys.itertuples(index=False))
    return np.asarray(groups.ngroup(), np.int64), names


def series_reference(
    values: Floats, series: Ints, trained: Mask, count: int, quantile: float
) -> Floats:
    """Return a quantile of each series' training rows, (count,); NaN for a series without any.

    ``values``, ``series`` and ``trained`` are the measurement, the index of the series, and whether
    the row is in the training split, of shape (n,).
    """
    reference = np.full(count, np.nan)
    rows = pd.Series(values[trained]).groupby(series[trained]).quantile(quantile)
    reference[rows.index.to_numpy(np.int64)] = rows.to_numpy()
    return reference


def bandwidth_class(
    throughput_mbps: Floats, reference_mbps: Floats, good_share: float, degraded_share: float
) -> Ints:
    """Return 0 good, 1 degraded or 2 bad: the throughput as a share of the link's reference.

    ``good`` is at least ``good_share`` of the reference, ``degraded`` at least
    ``degraded_share``, everything below is ``bad``.
    """
    below_good = throughput_mbps < good_share * reference_mbps
    below_degraded = throughput_mbps < degraded_share * reference_mbps
    return below_good.astype(np.int64) + below_degraded.astype(np.int64)
