"""What an evaluation shows beside the metrics; nothing here decides the verdict.

Every number is of the test split, and was computed after the model was final.
"""

from __future__ import annotations

from pydantic import Field

from dwcp_ml.contract.comparison import Comparison
from dwcp_ml.contract.distribution import FeatureDistribution
from dwcp_ml.contract.record import Record


class SeriesMetrics(Record):
    """The metrics of one link or one node."""

    series: str = Field(description="`node->peer` of a link, or the name of a node")
    examples: int = Field(ge=1, description="its examples in the test split")
    metrics: dict[str, float | None] = Field(description="null where a metric is not defined")
    reference: dict[str, float | None] = Field(
        default_factory=dict, description="the same metrics of the best strong reference"
    )
    comparison: Comparison | None = Field(
        default=None, description="of the model with that reference on the examples of this series"
    )


class IntervalCoverage(Record):
    """How many true values lie in the prediction intervals."""

    nominal: float = Field(gt=0, lt=1, description="the share that the intervals aim at")
    coverage: float = Field(ge=0, le=1, description="the share of the test examples inside")
    lower: float | None = Field(description="95 % lower bound of the coverage, block bootstrap")
    upper: float | None = Field(description="95 % upper bound of the coverage")
    calibration_examples: int = Field(
        ge=0, description="examples of the validation split that the width was calibrated on"
    )
    median_width: float = Field(description="median of (upper - lower) / prediction")


class ScoreBin(Record):
    """The test examples whose score lies between two bounds."""

    lower: float = Field(description="lowest score of the bin")
    upper: float = Field(description="highest score of the bin")
    examples: int = Field(ge=1)
    positives: int = Field(ge=0, description="anomalies; or right predictions of a class")
    mean_score: float
    share_lower: float = Field(description="95 % lower bound of positives / examples (Wilson)")
    share_upper: float = Field(description="95 % upper bound of positives / examples")

    @property
    def share(self) -> float:
        """The observed share of positives."""
        return self.positives / self.examples


class ScoreCalibration(Record):
    """The observed share of positives by score."""

    output: str = Field(description="the output of the model that is the score")
    is_probability: bool = Field(
        description="whether the score claims to be the probability of a positive; the scores of "
        "the detectors do not, so they have no Brier score and no calibration error"
    )
    bins: tuple[ScoreBin, ...]
    brier_score: float | None = Field(
        default=None, description="mean squared difference of probability and outcome, 0 to 1"
    )
    expected_calibration_error: float | None = Field(
        default=None, description="mean of |mean score - share| over the bins, by examples"
    )


class FeatureImportance(Record):
    """How much worse the metric is without the information of one feature."""

    feature: str
    loss: float = Field(description="mean worsening, in units of the metric; about 0 if unused")
    deviation: float = Field(ge=0, description="standard deviation over the repetitions")


class PermutationImportance(Record):
    """The importance of every feature, by permutation of its values."""

    metric: str
    value: float = Field(description="the metric with nothing permuted, on the same examples")
    examples: int = Field(ge=1, description="examples of the test split that were used")
    repetitions: int = Field(ge=1)
    features: tuple[FeatureImportance, ...] = Field(description="most important first")


class FeatureDrift(Record):
    """How far one feature of the test split lies from the training split."""

    feature: str
    psi: float = Field(description="population stability index, 20 quantiles of the training split")
    chance_psi: float = Field(
        description="PSI that independent examples stay below by chance, 95 %; examples close in "
        "time are not independent"
    )
    ks: float = Field(ge=0, le=1, description="Kolmogorov-Smirnov distance")


class Diagnostics(Record):
    """What a reader may want to know beyond the verdict."""

    series: tuple[SeriesMetrics, ...] = Field(default=(), description="worst first")
    intervals: IntervalCoverage | None = Field(
        default=None, description="null for a model without prediction intervals"
    )
    calibration: ScoreCalibration | None = None
    importance: PermutationImportance | None = Field(
        default=None, description="null for a model with one feature"
    )
    drift: tuple[FeatureDrift, ...] = Field(default=(), description="largest PSI first")
    training: tuple[FeatureDistribution, ...] = Field(
        default=(), description="of each feature in the training split"
    )
