"""Nodes that are about to fail, as rows that an isolation forest isolates early."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from dwcp_ml.contract.arrays import Floats32
from dwcp_ml.contract.bundle import PICKLE_NAME
from dwcp_ml.contract.errors import DwcpError, ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import Examples, ModelData, ReliabilityData
from dwcp_ml.contract.models import RELIABILITY, ModelSpec
from dwcp_ml.contract.records import ThresholdSource
from dwcp_ml.files import write_bytes
from dwcp_ml.models import storage
from dwcp_ml.models.forest import ForestArrays
from dwcp_ml.models.input_checks import check_training_data, checked_inputs
from dwcp_ml.models.protocol import EpochProgress, FitContext, FitResult, Predictions
from dwcp_ml.models.settings import ModelSettings, Section, resolve

MIN_TRAINING_ROWS: Final = 2

UPTIME: Final = RELIABILITY.features.index("uptime_pct")

LOG_OFFSET: Final = 0.001
"""Added to each feature before its logarithm: far below usual values, makes log(0) finite."""

FULL_UPTIME: Final = 100.0
"""Percent; the logarithm is that of the time that lacks, which is what varies."""


class FeatureSettings(Section):
    """The transform of the features before the ``StandardScaler``."""

    transform: Literal["log", "none"] = Field(
        description="log: logarithms, of uptime that of the downtime, because the features vary by "
        "factors; none: raw features"
    )


class ForestSettings(Section):
    """The arguments of scikit-learn's ``IsolationForest``; its random state is the run's seed."""

    n_estimators: int = Field(ge=1, le=10_000, description="number of trees")
    max_samples: Literal["auto"] | Annotated[int, Field(ge=2)] = Field(
        description="rows per tree, or all if there are fewer; auto is 256"
    )
    contamination: Literal["auto"] | Annotated[float, Field(gt=0, le=0.5)] = Field(
        description="share of anomalies that sets the threshold of the rule auto; auto leaves it "
        "at 0.5"
    )


class ThresholdSettings(Section):
    """The choice of the threshold on the anomaly score."""

    rule: Literal["incidents", "auto"] = Field(
        description="incidents: by the recall on the incidents of the training split; auto: the "
        "forest's own, see `forest.contamination`"
    )
    incident_recall: float = Field(
        ge=0.5, le=1, description="share of the incident rows of the training split to flag"
    )
    min_incidents: int = Field(
        ge=1, description="with fewer incidents in the training split the rule is auto"
    )


class ReliabilityDetectorSettings(ModelSettings):
    """The settings of ``reliability_detector.yaml``."""

    data: ReliabilityData
    features: FeatureSettings
    forest: ForestSettings
    threshold: ThresholdSettings

    @model_validator(mode="after")
    def _check_one_threshold(self) -> ReliabilityDetectorSettings:
        if self.forest.contamination != "auto" and self.threshold.rule != "auto":
            raise ValueError(
                "forest.contamination sets the threshold only if threshold.rule is auto"
            )
        return self


class ReliabilityDetector:
    """Logarithm → StandardScaler → IsolationForest → threshold.

    The forest is grown without labels (Liu, Ting, Zhou, "Isolation Forest", ICDM 2008). It draws
    each split evenly over the range of a feature, so a feature that varies by factors is split in
    its tail only; on a logarithmic scale it is split everywhere. A tree of few rows holds few of
    an incident, which mask each other in a larger one (section 3 of the same paper). Labels choose
    only the threshold: the operating point of a given recall.

    ``arrays`` is the trained forest, ``None`` before ``fit``. ``pickled`` is ``model.pkl`` as
    bytes: the scikit-learn pipeline for other tools, which this project writes and never unpickles.
    """

    contract: ClassVar[ModelSpec] = RELIABILITY
    defaults: ClassVar[Path] = Path(__file__).with_suffix(".yaml")

    def __init__(self, overrides: Mapping[str, Any] | None = None) -> None:
        self.settings = resolve(ReliabilityDetectorSettings, self.defaults, overrides)
        self.spec = self.contract
        self.form = self.contract.form(self.settings.form).name
        self.fitted: dict[str, float] = {}
        self.arrays: ForestArrays | None = None
        self.pickled = b""

    def fit(self, data: ModelData, context: FitContext) -> FitResult:
        """Grow the forest on all training rows, incidents included, then choose the threshold.

        The trees depend on no label.

        Raises ``TrainingFailed`` if there are too few training rows, or their numbers are not
        finite.
        """
        check_training_data(self.spec, self.form, data, validated=False)
        if len(data.train) < MIN_TRAINING_ROWS:
            raise TrainingFailed(
                f"{self.spec.name} has one training row; a tree needs two.", code=ErrorCode.TOO_FEW
            )
        pipeline = self._pipeline(data.train.inputs, context.seed)
        *transform, scaler, forest = [step for _, step in pipeline.steps]
        self.arrays = ForestArrays.of(scaler, forest, transform[0] if transform else None)
        auto = -float(forest.offset_)
        threshold, source = self._threshold(data, auto)
        forest.offset_ = -threshold  # the pickled pipeline's own ``predict`` flags the same rows
        self.pickled = pickle.dumps(pipeline, protocol=5)
        self.fitted = {
            "threshold": threshold,
            "threshold_auto": auto,
            "rows_per_tree": forest.max_samples_,
        }
        context.progress(EpochProgress(1, 1, 1.0, 0.0, None, 0.0))
        return FitResult((), dict(self.fitted), threshold_source=source)

    def _pipeline(self, inputs: Floats32, seed: int) -> Any:
        """Return the scikit-learn pipeline, fitted on raw rows (n, features)."""
        from sklearn.ensemble import IsolationForest
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, RobustScaler, StandardScaler

        rows = np.array(inputs, dtype=np.float32)
        steps: list[Any] = []
        sign = np.ones(rows.shape[1])
        if self.settings.features.transform == "log":
            sign[UPTIME] = -1.0
            # A shift and a change of sign: scikit-learn alone has to load the pickle.
            shift = RobustScaler().fit(rows)
            shift.center_ = np.where(sign < 0, FULL_UPTIME + LOG_OFFSET, -LOG_OFFSET)
            shift.scale_ = sign
            steps = [shift, FunctionTransformer(np.log)]
            rows = np.log(shift.transform(rows))
        scaler = StandardScaler().fit(rows)
        scaler.scale_ *= sign  # so that it rises with the feature, as the export requires
        chosen = self.settings.forest.model_dump()
        if chosen["max_samples"] != "auto":
            chosen["max_samples"] = min(chosen["max_samples"], len(rows))
        forest = IsolationForest(**chosen, random_state=seed, n_jobs=1)
        return make_pipeline(*steps, scaler, forest.fit(scaler.transform(rows)))

    def _threshold(self, data: ModelData, auto: float) -> tuple[float, ThresholdSource]:
        """Return the threshold and what it was chosen by; ``auto`` is the forest's own."""
        rule, train = self.settings.threshold, data.train
        if rule.rule == "auto":
            return auto, ThresholdSource.AUTO
        if data.label_source == "window":
            return auto, ThresholdSource.AUTO_NO_INTERVALS
        if incidents_in(train) < rule.min_incidents:
            return auto, ThresholdSource.AUTO_TOO_FEW_INCIDENTS
        score = self.forest().scores(train.inputs[train.truth.astype(bool)]).astype(np.float32)
        # A score of the data, so that at least this share reaches it.
        chosen = np.quantile(score, 1.0 - rule.incident_recall, method="lower")
        return float(chosen), ThresholdSource.INCIDENTS

    def forest(self) -> ForestArrays:
        """Return the trained forest; ``DwcpError`` if the model was not trained."""
        if self.arrays is None:
            raise DwcpError(
                f"{self.spec.name} is not trained; call fit or load a trained model.",
                code=ErrorCode.NOT_TRAINED,
            )
        return self.arrays

    def predict(self, inputs: Floats32) -> Predictions:
        """Predict raw inputs; see ``protocol.Model.predict``."""
        rows = checked_inputs(self.spec, inputs)
        score = self.forest().scores(rows).astype(np.float32)
        threshold = np.float32(self.fitted["threshold"])
        return {"anomaly_score": score, "is_anomaly": score >= threshold}

    def save(self, directory: Path) -> None:
        """Write the trained model, and ``model.pkl`` beside it; see ``protocol.Model.save``."""
        arrays = self.forest().as_dict()
        write_bytes(directory / PICKLE_NAME, self.pickled)
        settings = self.settings.model_dump(mode="json")
        description = {"name": self.spec.name, "settings": settings, "fitted": self.fitted}
        storage.write_model(directory, description, arrays)

    def restore(self, directory: Path, stored: Mapping[str, Any]) -> None:
        """Load what ``save`` wrote; ``model.pkl`` is not unpickled."""
        self.arrays = ForestArrays(**storage.read_arrays(directory, stored))
        self.fitted = dict(stored["fitted"])
        path = directory / PICKLE_NAME
        self.pickled = path.read_bytes() if path.exists() else b""


def incidents_in(examples: Examples) -> int:
    """Return the number of incidents that a split has rows of."""
    return len(np.unique(examples.event[examples.event >= 0]))
