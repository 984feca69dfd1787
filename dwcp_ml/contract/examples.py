"""Training data as arrays, and the settings of how telemetry becomes arrays.

``dwcp_ml.data`` builds ``ModelData``; the models and the evaluation read it. It holds raw features
in the units of the contract; scaling is part of each model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dwcp_ml.contract.data_use import DataUse
from dwcp_ml.contract.models import ModelSpec

GAP_FACTOR: Final = 2.5
"""A step longer than this many usual steps of its series is a gap, by default: one missing row, or
a clock that is late, is none."""


@dataclass(frozen=True)
class Examples:
    """The examples of one split, in the order of time.

    Parameters
    ----------
    inputs : float32 of shape (n, *spec.input.shape)
        Raw features in contract units.
    truth : shape (n,)
        bandwidth: next throughput in Mbit/s (float64), or its class (int64); compression: the
        best level or type (int64); reliability and latency: inside an incident or episode
        (bool).
    timestamp : float64 of shape (n,)
        Epoch seconds of the last row that ``inputs`` holds.
    series : int64 of shape (n,)
        Index of the link or node in ``ModelData.series_names``.
    event : int64 of shape (n,)
        Index of the incident or episode that makes the example positive, -1 for none.
    gains : float64 of shape (n, 10), optional
        Compression: throughput at each level over level 0, minus 1.
    span : float64 of shape (n, 2), optional
        Windows: epoch seconds of the first and the last row that the inputs or the truth hold.
    """

    inputs: NDArray[np.float32]
    truth: NDArray[Any]
    timestamp: NDArray[np.float64]
    series: NDArray[np.int64]
    event: NDArray[np.int64]
    gains: NDArray[np.float64] | None = None
    span: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.truth)

    def take(self, rows: NDArray[Any]) -> Examples:
        """Return the examples at ``rows`` (indices or a boolean mask)."""
        return Examples(
            inputs=self.inputs[rows],
            truth=self.truth[rows],
            timestamp=self.timestamp[rows],
            series=self.series[rows],
            event=self.event[rows],
            gains=None if self.gains is None else self.gains[rows],
            span=None if self.span is None else self.span[rows],
        )


@dataclass(frozen=True)
class ModelData:
    """The examples of one model, split; no window crosses a link, a gap or a split boundary."""

    spec: ModelSpec
    form: str
    train: Examples
    validation: Examples
    test: Examples
    series_names: tuple[str, ...]
    cadence_seconds: float
    label_source: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    cadences: NDArray[np.float64] | None = None
    """The usual step of each series, seconds; None: ``cadence_seconds`` for all."""
    gap_factor: float = GAP_FACTOR
    use: DataUse | None = None
    references: NDArray[np.float64] | None = None
    """The quantile of each series' training rows that its labels are relative to; NaN: unknown."""
    together: NDArray[np.float64] | None = None
    """Latency: the time within which rows of each node are one observation, seconds."""

    def step(self, series: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the usual step, in seconds, of the series of each row, (n,)."""
        if self.cadences is None:
            return np.full(len(series), self.cadence_seconds)
        return self.cadences[series]

    def max_step(self, series: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the longest step, in seconds, that is no gap in the series of each row, (n,)."""
        return self.gap_factor * self.step(series)

    @property
    def rows(self) -> dict[str, int]:
        """The number of examples in each split."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(examples) for name, examples in splits.items()}


class ExampleStream(Protocol):
    """The examples of a training split that does not fit into memory; of those of ``ModelData``.

    They hold no times.
    """

    @property
    def digest(self) -> str:
        """Identifies their content and order."""

    def __len__(self) -> int: ...

    def buffers(self, seed: int, epoch: int, count: int) -> Iterator[Examples]:
        """Yield about ``count`` examples in buffers that fit into memory, in an order by the seed.

        Successive epochs, from 1, read on: none of the examples is read again before all were.
        Epochs of all examples hold each of them once.
        """


class DataSettings(BaseModel):
    """How telemetry becomes examples: the section ``data`` of a model's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation_fraction: float = Field(
        default=0.15, ge=0.0, lt=1.0, description="share of the examples in the validation split"
    )
    test_fraction: float = Field(
        default=0.15, gt=0.0, lt=1.0, description="share of the examples in the test split"
    )
    min_training_examples: int = Field(
        default=1000, ge=0,
        description="with fewer examples to train on, the report warns; about 30 batches of 32",
    )  # fmt: skip

    max_rows: int = Field(
        default=500_000, ge=1000,
        description="of more rows a random sample is used, in blocks of one node and 200 usual "
        "steps; memory grows with this, not with the telemetry",
    )  # fmt: skip

    @model_validator(mode="after")
    def _leave_a_training_split(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 0.9:
            raise ValueError("validation_fraction + test_fraction must stay below 0.9")
        return self


class WindowedData(DataSettings):
    """Windows of consecutive rows of one series."""

    gap_factor: float = Field(
        default=GAP_FACTOR, ge=1.0, le=1000.0,
        description="a step longer than this many usual steps of its link or node is a gap, which "
        "no window crosses",
    )  # fmt: skip


class BandwidthData(WindowedData):
    """Windows of one link and the throughput one step later."""

    window: int = Field(default=10, ge=2, le=500, description="time steps")
    good_share: float = Field(
        default=0.7, gt=0, description="class good: share of the link's own 95th percentile"
    )
    degraded_share: float = Field(default=0.4, gt=0, description="class degraded: at least this")

    @model_validator(mode="after")
    def _check_cutoffs(self) -> Self:
        if self.degraded_share >= self.good_share:
            raise ValueError("degraded_share must be less than good_share")
        return self


class CompressionData(DataSettings):
    """Rows, and the best compression level of each."""

    split: Literal["stratified", "temporal"] = Field(
        default="stratified",
        description="stratified: random rows, each level with its share; temporal: the first rows "
        "in time for training, the last for the test",
    )
    temporal_check: bool = Field(
        default=True,
        description="with the stratified split: train a second model on a temporal split of the "
        "other rows, and report its metrics; they have no part in the verdict",
    )
    hde_hit_rate_cutoff: float = Field(
        default=0.5, ge=0, le=1, description="type hde: delta hit rate above this, else zstd"
    )


class ReliabilityData(DataSettings):
    """Rows, positive inside an incident of their node."""

    validation_fraction: float = Field(
        default=0.0, ge=0.0, lt=1.0,
        description="share of the examples in the validation split; the forest needs none",
    )  # fmt: skip
    min_training_examples: int = Field(
        default=256, ge=0,
        description="with fewer rows to train on, the report warns; four trees of the forest",
    )  # fmt: skip
    incident_window_minutes: float = Field(
        default=15.0, gt=0, description="either side, for incidents without start and end"
    )


class LatencyData(WindowedData):
    """Windows of one node, positive if any step lies in an episode."""

    window: int = Field(default=20, ge=2, le=500, description="time steps")
    derived_quantile: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="without labels: high is above this quantile of the node's training rows",
    )
