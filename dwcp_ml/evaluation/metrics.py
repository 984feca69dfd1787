"""The metrics of the model, of each baseline and of each reference on one test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.evaluation.comparison import Blocks, Statistic, point


@dataclass(frozen=True)
class Metrics:
    """The metrics of the model or of one baseline.

    ``statistics`` can be computed on any draw of blocks, ``plain`` on the whole test split only.
    """

    statistics: dict[str, Statistic] = field(default_factory=dict)
    plain: dict[str, float] = field(default_factory=dict)

    def values(self, blocks: Blocks) -> dict[str, float | None]:
        """Return every metric by name; None where it is not defined."""
        values = {name: point(each, blocks) for name, each in self.statistics.items()}
        values.update(self.plain)
        return {name: float(v) if np.isfinite(v) else None for name, v in values.items()}


@dataclass(frozen=True)
class EvaluationResult:
    """The evaluation of one model, its baselines and its references on the test split.

    ``strong_predictions`` are those of each strong reference in the outputs of the model, and
    ``notes`` are sentences that explain the metrics to a reader.
    """

    model: Metrics
    baselines: dict[str, Metrics]
    references: dict[str, Metrics] = field(default_factory=dict)
    strong_predictions: dict[str, dict[str, Array]] = field(default_factory=dict)
    plot_arrays: dict[str, Array] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def model_output(data: ModelData, predictions: Mapping[str, Array], output: str) -> Array:
    """Return one output of the model for every example of the test split.

    Raises ``DwcpError`` if the output is missing or of another length.
    """
    if output not in predictions:
        raise DwcpError(
            f"{data.spec.name} has no output '{output}', only {', '.join(sorted(predictions))}: "
            "predict with the form that it was trained for.",
            code=ErrorCode.MISSING,
            subject=output,
        )
    values = np.asarray(predictions[output])
    if len(values) != len(data.test):
        raise DwcpError(
            f"{data.spec.name} has {len(values)} predictions for {len(data.test)} examples: "
            "predict on the test split of the same data.",
            code=ErrorCode.WRONG_SHAPE,
            subject=str(len(values)),
        )
    return values


def feature(data: ModelData, inputs: Array, name: str) -> Floats:
    """Return one feature of ``inputs``, shape (n,) or (n, window), as float64."""
    if len(data.spec.features) == 1:
        return inputs.astype(np.float64)
    return inputs[..., data.spec.features.index(name)].astype(np.float64)
