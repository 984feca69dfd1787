"""The input features of a model, unscaled, in the units of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.columns import COLUMNS, column_of_feature
from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.data.tally import shown

REFERENCE_QUANTILE: Final = 0.95
"""The reference throughput of a link: this quantile of its training rows."""


def category_codes(column: str, words: pd.Series[Any]) -> NDArray[np.float32]:
    """Return the code of each word of a category, as the contract numbers them.

    Raises
    ------
    DataRefused
        If a word is not in the contract.
    """
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


def feature_matrix(frame: pd.DataFrame, features: Sequence[str]) -> NDArray[np.float32]:
    """Return the features of every row.

    Parameters
    ----------
    frame
        Rows as :func:`dwcp_ml.data.reading.load` returns them.
    features
        Names of features; ``link_type_encoded`` is the code of column ``link_type``.

    Returns
    -------
    float32 of shape (n, len(features))
    """
    matrix = np.empty((len(frame), len(features)), np.float32)
    for position, feature in enumerate(features):
        column = column_of_feature(feature)
        values = frame[column.name]
        coded = bool(column.codes)
        matrix[:, position] = category_codes(column.name, values) if coded else values.to_numpy()
    return matrix


def series_index(
    frame: pd.DataFrame, key: Sequence[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return the index of each row's series, and the name of each series.

    The name of a link is ``node->peer``, that of a node its own. Names are in ascending order of
    their keys.
    """
    columns = [frame[column].to_numpy() for column in key]
    if len(frame) == 0:
        return np.zeros(0, np.int64), ()
    codes = np.zeros(len(frame), np.int64)
    for values in columns:
        ranks, distinct = pd.factorize(values, sort=True)
        codes = codes * len(distinct) + ranks
    _, first, index = np.unique(codes, return_index=True, return_inverse=True)
    parts = ([str(word) for word in values[first]] for values in columns)
    names = tuple("->".join(words) for words in zip(*parts, strict=True))
    return index.astype(np.int64), names


def series_reference(
    values: NDArray[np.float64],
    series: NDArray[np.int64],
    trained: NDArray[np.bool_],
    count: int,
    quantile: float,
) -> NDArray[np.float64]:
    """Return a quantile of each series' training rows; NaN for a series without any.

    Parameters
    ----------
    values, series, trained : shape (n,)
        The measurement, the index of the series, and whether the row is in the training split;
        other rows are ignored.
    count
        Number of series.

    Returns
    -------
    float64 of shape (count,)
    """
    reference = np.full(count, np.nan)
    rows = pd.Series(values[trained]).groupby(series[trained]).quantile(quantile)
    reference[rows.index.to_numpy(np.int64)] = rows.to_numpy()
    return reference


def bandwidth_class(
    throughput_mbps: NDArray[np.float64],
    reference_mbps: NDArray[np.float64],
    good_share: float,
    degraded_share: float,
) -> NDArray[np.int64]:
    """Return 0 good, 1 degraded or 2 bad: the throughput as a share of the link's reference.

    ``good`` is at least ``good_share`` of the reference, ``degraded`` at least
    ``degraded_share``, everything below is ``bad``.
    """
    below_good = throughput_mbps < good_share * reference_mbps
    below_degraded = throughput_mbps < degraded_share * reference_mbps
    return below_good.astype(np.int64) + below_degraded.astype(np.int64)
