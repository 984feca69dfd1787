"""The predictions of each model version, from the prediction log: one row for each."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.keys import link_of
from dwcp_ml.contract.models import MODELS, ModelSpec
from dwcp_ml.prediction_log.log import LogRecord

PREDICTIONS: Final = {
    "next_throughput_mbps": ("next_throughput_mbps", None),
    "compression_level": ("compression_level", None),
    "anomaly": ("is_anomaly", "anomaly_score"),
    "high_latency": ("is_high_latency", "reconstruction_error"),
}
"""Form of the model -> the output that is evaluated, and the score that it was derived from."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one version of one model.

    Parameters
    ----------
    request_id, link : object of shape (n,)
        Text; ``link`` is None where none was named.
    row, steps : int64 of shape (n,)
        Position in the request; time steps of the input.
    moment : float64 of shape (n,)
        Epoch seconds at which the features were true.
    prediction, score : float64 of shape (n,)
        Booleans as 0 and 1; NaN where the output was not a number. ``score`` is NaN for a model
        without one.
    duplicates
        Records that were left out because their request and version were there already.
    other_form
        Predictions in another form than the default one; they are not among the rows.
    """

    spec: ModelSpec
    version: str
    request_id: NDArray[np.object_]
    link: NDArray[np.object_]
    row: NDArray[np.int64]
    steps: NDArray[np.int64]
    moment: NDArray[np.float64]
    prediction: NDArray[np.float64]
    score: NDArray[np.float64]
    digests: tuple[str, ...]
    duplicates: int
    other_form: int

    def __len__(self) -> int:
        return len(self.moment)


@dataclass
class _Columns:
    """The same, while it is collected."""

    spec: ModelSpec
    version: str
    request_id: list[str] = field(default_factory=list)
    link: list[str | None] = field(default_factory=list)
    row: array[int] = field(default_factory=lambda: array("q"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    moment: array[float] = field(default_factory=lambda: array("d"))
    prediction: array[float] = field(default_factory=lambda: array("d"))
    score: array[float] = field(default_factory=lambda: array("d"))
    seen: set[tuple[str, int]] = field(default_factory=set)
    digests: set[str] = field(default_factory=set)
    links: dict[str, str] = field(default_factory=dict)
    duplicates: int = 0
    other_form: int = 0

    def add(self, record: LogRecord) -> None:
        key = (record.request_id, record.row)
        if key in self.seen:
            self.duplicates += 1
            return
        self.seen.add(key)
        self.digests.add(record.digest)
        output, score = PREDICTIONS[self.spec.form().name]
        if output not in record.outputs or (score is not None and score not in record.outputs):
            self.other_form += 1
            return
        self.request_id.append(record.request_id)
        # Links are few: one object for each.
        link = None if record.link is None else link_of(record.link)
        self.link.append(None if link is None else self.links.setdefault(link, link))
        self.row.append(record.row)
        self.steps.append(len(record.inputs) if self.spec.window > 1 else 1)
        self.moment.append(record.moment)
        self.prediction.append(scalar(record.outputs[output]))
        self.score.append(float("nan") if score is None else scalar(record.outputs[score]))

    def build(self) -> Predictions:
        return Predictions(
            spec=self.spec,
            version=self.version,
            request_id=_objects(self.request_id),
            link=_objects(self.link),
            row=np.asarray(self.row, np.int64),
            steps=np.asarray(self.steps, np.int64),
            moment=np.asarray(self.moment, np.float64),
            prediction=np.asarray(self.prediction, np.float64),
            score=np.asarray(self.score, np.float64),
            digests=tuple(sorted(self.digests)),
            duplicates=self.duplicates,
            other_form=self.other_form,
        )


def collect(
    records: Iterable[LogRecord],
    specs: Sequence[ModelSpec] = (),
    since: float = float("-inf"),
    until: float = float("inf"),
) -> list[Predictions]:
    """Return the predictions of each version of each model, in the usual order of the models.

    Parameters
    ----------
    specs
        The models to include; empty for all.
    since, until
        Epoch seconds; includes predictions for features of ``since`` <= moment < ``until``.

    Raises
    ------
    DataRefused
        If the log names an unknown model.
    """
    included = {spec.name for spec in specs} or set(MODELS)
    columns: dict[tuple[str, str], _Columns] = {}
    for record in records:
        if record.model not in MODELS:
            raise DataRefused(
                f"the prediction log holds predictions of '{record.model[:40]}', which is none of "
                f"{', '.join(MODELS)}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=record.model[:40],
            )
        if record.model not in included or not since <= record.moment < until:
            continue
        key = record.model, record.version
        if key not in columns:
            columns[key] = _Columns(MODELS[record.model], record.version)
        columns[key].add(record)
    ordered = sorted(columns, key=lambda key: (list(MODELS).index(key[0]), key[1]))
    return [columns[key].build() for key in ordered]


def scalar(value: Any) -> float:
    """Return an output of one instance as a number; NaN if it is not one.

    Outputs are float32: a decimal of the log is short for the nearest one.
    """
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return float(np.float32(value)) if isinstance(value, int | float) else float("nan")


def _objects(values: Sequence[Any]) -> NDArray[np.object_]:
    objects = np.empty(len(values), object)
    objects[:] = values
    return objects
