"""Nodes that are about to fail, as rows that an isolation forest isolates early."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import numpy as np
from pydantic import Field

from dwcp_ml.contract.arrays import Floats32
from dwcp_ml.contract.bundle import PICKLE_NAME
from dwcp_ml.contract.errors import DwcpError, ErrorCode, TrainingFailed
from dwcp_ml.contract.examples import ModelData, ReliabilityData
from dwcp_ml.contract.models import RELIABILITY, ModelSpec
from dwcp_ml.files import write_bytes
from dwcp_ml.models import storage
from dwcp_ml.models.forest import ForestArrays
from dwcp_ml.models.input_checks import check_training_data, checked_inputs
from dwcp_ml.models.protocol import EpochProgress, FitContext, FitResult, Predictions
from dwcp_ml.models.settings import ModelSettings, Section, resolve

MIN_TRAINING_ROWS: Final = 2


class ForestSettings(Section):
    """The arguments of scikit-learn's ``IsolationForest``; its random state is the run's seed."""

    n_estimators: int = Field(ge=1, le=10_000, description="number of trees")
    max_samples: Literal["auto"] | Annotated[int, Field(ge=2)] = Field(
        description="rows per tree; auto is 256, or all if there are fewer"
    )
    contamination: Literal["auto"] | Annotated[float, Field(gt=0, le=0.5)] = Field(
        description="share of anomalies that sets the threshold; auto leaves it at 0.5"
    )


class ReliabilityDetectorSettings(ModelSettings):
    """The settings of ``reliability_detector.yaml``."""

    data: ReliabilityData
    forest: ForestSettings


class ReliabilityDetector:
    """StandardScaler → IsolationForest.

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
        """Grow the forest on all training rows, incidents included; it uses no labels.

        Raises ``TrainingFailed`` if there are too few training rows, or their numbers are not
        finite.
        """
        check_training_data(self.spec, self.form, data, validated=False)
        if len(data.train) < MIN_TRAINING_ROWS:
            raise TrainingFailed(
                f"{self.spec.name} has one training row; a tree needs two.", code=ErrorCode.TOO_FEW
            )
        from sklearn.ensemble import IsolationForest
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        chosen = self.settings.forest.model_dump()
        pipeline = make_pipeline(
            StandardScaler(), IsolationForest(**chosen, random_state=context.seed, n_jobs=1)
        )
        pipeline.fit(np.array(data.train.inputs, dtype=np.float32))
        forest = pipeline[-1]
        self.arrays = ForestArrays.of(pipeline[0], forest)
        self.pickled = pickle.dumps(pipeline, protocol=5)
        self.fitted = {"threshold": -float(forest.offset_), "rows_per_tree": forest.max_samples_}
        context.progress(EpochProgress(1, 1, 1.0, 0.0, None, 0.0))
        return FitResult((), dict(self.fitted))

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
