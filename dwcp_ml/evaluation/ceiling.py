"""The ceiling: the best possible metrics on simulated data; a better model shows a leak.

The simulator writes, for each model and form, the best reachable value of each metric, computed
from its own hidden state, and the predictions of its oracle on each test example. The values are
shown beside the model's. The predictions are compared with the model's on the same examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, cast

import numpy as np

from dwcp_ml.contract.arrays import Array, Ints
from dwcp_ml.contract.examples import ModelData

if TYPE_CHECKING:
    import pandas as pd

NOT_COMPARED: Final = frozenset({"recall"})
"""Metrics that are not compared with the oracle's.

A model that flags every row has a recall of 1. A recall above that of an oracle with another
false-positive rate is therefore no sign of a leak; a leak shows in PR-AUC."""


def ceiling_values(entry: Mapping[str, Any] | None, form: str) -> dict[str, float] | None:
    """Return the ceiling of each metric of one form from the simulator's entry; None without it.

    >>> ceiling_values({"f": {"ceiling": {"accuracy": 0.99, "recall": None}}}, "f")
    {'accuracy': 0.99}
    """
    found = (entry or {}).get(form)
    if not isinstance(found, Mapping) or not found.get("ceiling"):
        return None
    return {
        name: float(value)
        for name, value in found["ceiling"].items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


@dataclass(frozen=True)
class Oracle:
    """The oracle's predictions of one form.

    Parameters
    ----------
    timestamp : shape (n,)
        Epoch seconds of each example.
    series : shape (n,)
        The name of its link or node.
    truth : shape (n,)
        What had to be predicted.
    predictions : dict of str to dict of str to array
        Metric -> output name -> the predictions, of shape (n,), that are best for that metric.
    """

    timestamp: Array
    series: Array
    truth: Array
    predictions: dict[str, dict[str, Array]]

    @classmethod
    def of(cls, data: ModelData, predictions: dict[str, dict[str, Array]]) -> Self:
        """Return the predictions on the test split of ``data``."""
        names = np.array(data.series_names)[data.test.series]
        return cls(data.test.timestamp, names, data.test.truth, predictions)

    @classmethod
    def read(cls, path: Path, form: str) -> Self | None:
        """Read the predictions of one form from the simulator's file; None if it has none."""
        import pandas as pd

        rows = pd.read_parquet(path, filters=[("form", "==", form)])
        if rows.empty:
            return None
        predictions: dict[str, dict[str, Array]] = {}
        for key, group in rows.groupby(["metric", "output"], sort=False):
            metric, output = map(str, cast(tuple[str, str], key))
            predictions.setdefault(metric, {})[output] = group["prediction"].to_numpy()
        # Every group has the same examples in the same order.
        timestamp, series, truth = (
            group[name].to_numpy() for name in ("timestamp", "series", "truth")
        )
        return cls(timestamp, series, truth, predictions)

    def frame(self, form: str) -> pd.DataFrame:
        """Return the predictions as rows of the simulator's file."""
        import pandas as pd

        parts = [
            pd.DataFrame(
                {
                    "form": form,
                    "metric": metric,
                    "output": output,
                    "timestamp": self.timestamp.astype(np.float64),
                    "series": self.series,
                    "truth": self.truth.astype(np.float64),
                    "prediction": values.astype(np.float64),
                }
            )
            for metric, outputs in self.predictions.items()
            for output, values in outputs.items()
        ]
        return pd.concat(parts, ignore_index=True)

    def shared(self, data: ModelData) -> tuple[Ints, Ints]:
        """Return the rows of the test split that the oracle has predicted, and its own rows.

        Both are empty if the labels of one row differ: then the oracle predicted something else.
        """
        at = {key: row for row, key in enumerate(zip(self.timestamp, self.series, strict=True))}
        names = np.array(data.series_names)[data.test.series]
        keys = zip(data.test.timestamp, names, strict=True)
        theirs = np.array([at.get(key, -1) for key in keys], dtype=np.int64)
        mine = np.flatnonzero(theirs >= 0)
        theirs = theirs[mine]
        if not np.allclose(data.test.truth[mine].astype(np.float64), self.truth[theirs]):
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        return mine, theirs
