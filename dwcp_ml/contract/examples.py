"""Training data as arrays, and the settings of how telemetry becomes arrays.

``dwcp_ml.data`` builds ``ModelData``; the models and the evaluation read it. It holds raw features
in the units of the contract; scaling is part of each model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dwcp_ml.contract.models import ModelSpec


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
    """

    inputs: NDArray[np.float32]
    truth: NDArray[Any]
    timestamp: NDArray[np.float64]
    series: NDArray[np.int64]
    event: NDArray[np.int64]
    gains: NDArray[np.float64] | None = None

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

    @property
    def rows(self) -> dict[str, int]:
        """The number of examples in each split."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: len(examples) for name, examples in splits.items()}


class DataSettings(BaseModel):
    """How telemetry becomes examples: the section ``data`` of a model's YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    validation_fraction: float = Field(
        default=0.15, ge=0.0, lt=1.0, description="share of the examples in the validation split"
    )
    test_fraction: float = Field(
        default=0.15, gt=0.0, lt=1.0, description="share of the examples in the test split"
    )

    @model_validator(mode="after")
    def _leave_a_training_split(self) -> Self:
        if self.validation_fraction + self.test_fraction >= 0.9:
            raise ValueError("validation_fraction + test_fraction must stay below 0.9")
        return self


class BandwidthData(DataSettings):
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

    hde_hit_rate_cutoff: float = Field(
        default=0.5, ge=0, le=1, description="type hde: delta hit rate above this, else zstd"
    )


class ReliabilityData(DataSettings):
    """Rows, positive inside an incident of their node."""

    validation_fraction: float = Field(
        default=0.0, ge=0.0, lt=1.0,
        description="share of the examples in the validation split; the forest needs none",
    )  # fmt: skip
    incident_window_minutes: float = Field(
        default=15.0, gt=0, description="either side, for incidents without start and end"
    )


class LatencyData(DataSettings):
    """Windows of one node, positive if any step lies in an episode."""

    window: int = Field(default=20, ge=2, le=500, description="time steps")
    derived_quantile: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="without labels: high is above this quantile of the node's training rows",
    )
