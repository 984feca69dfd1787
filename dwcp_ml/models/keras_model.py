"""The base of the three Keras models: scale, train, fit on validation, predict, store."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats32
from dwcp_ml.contract.data_use import LeftOut
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.contract.examples import Examples, ModelData
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.models import checkpoint, runtime, storage, training_loop
from dwcp_ml.models.input_checks import check_training_data, checked_inputs, empty_predictions
from dwcp_ml.models.protocol import FitContext, FitResult, Predictions
from dwcp_ml.models.scaling import Scaling
from dwcp_ml.models.settings import ModelSettings, Training, resolve
from dwcp_ml.models.training_loop import Scaled, ScaledStream

PREDICTION_BATCH: Final = 4096


class NetworkModel(ABC):
    """A network between a scaling of the inputs and the operations that make its outputs.

    ``fitted`` are values fitted beside the network and the scaling, such as thresholds; ``weights``
    are in Keras's order, and empty before ``fit``.
    """

    contract: ClassVar[ModelSpec]
    settings_class: ClassVar[type[ModelSettings]]
    log_offsets: ClassVar[Mapping[str, float]] = {}
    defaults: ClassVar[Path]

    def __init__(self, overrides: Mapping[str, Any] | None = None) -> None:
        self.settings: Any = resolve(self.settings_class, self.defaults, overrides)
        self.form = self.contract.form(self.settings.form).name
        window = getattr(self.settings.data, "window", self.contract.window)
        self.spec = dataclasses.replace(self.contract, window=window)
        self.fitted: dict[str, float] = {}
        self.scaling: Scaling | None = None
        self.weights: tuple[Floats32, ...] = ()
        self._graph: Any = None
        self._predict: Callable[[Floats32], dict[str, Array]]

    # --- what each model defines -----------------------------------------------------------

    @property
    def training(self) -> Training:
        """The section of the settings that the training loop reads."""
        section: Training = self.settings.training
        return section

    @abstractmethod
    def network(self) -> Any:
        """Return a new, untrained ``keras.Sequential``."""

    def fit_scaling(self, train: Examples) -> Scaling:
        """Fit log, clip to the range of the training rows, standardise."""
        offsets = [self.log_offsets[feature] for feature in self.spec.features]
        return Scaling.fit(train.inputs, offsets, clips=True)

    def fit_targets(self, train: Examples) -> dict[str, float]:  # noqa: ARG002
        """Return the values that turn labels into targets, from training rows only."""
        return {}

    @abstractmethod
    def targets(self, examples: Examples, inputs: Floats32) -> Array:
        """Return the targets of the network for ``examples`` with these scaled inputs."""

    @abstractmethod
    def fit_outputs(self, validation: Examples, outputs: Floats32) -> dict[str, float]:
        """Return the values fitted on validation, from the outputs of the network there."""

    @abstractmethod
    def output_tensors(self, features: Any, scaled: Any, output: Any) -> dict[str, Any]:
        """Return the output tensors by name, from raw and scaled inputs and the output."""

    def shaped(self, scaled: Floats32) -> Floats32:
        """Return scaled inputs in the shape that the network reads."""
        return scaled

    def corrected(
        self,
        outputs: Floats32,
        targets: Array,  # noqa: ARG002
    ) -> Floats32:
        """Return validation outputs as ``fit_outputs`` will correct them, to compare epochs."""
        return outputs

    def validation_parts(self, validation: Examples) -> tuple[Examples, Examples | None]:
        """Return what epochs and values are chosen on, and what ``fit_intervals`` gets, if any."""
        return validation, None

    def fit_intervals(self, calibration: Examples) -> dict[str, float]:  # noqa: ARG002
        """Return the values of prediction intervals; the model is final and predicts."""
        return {}

    def learnable(self, train: Examples) -> Examples:
        """Return the examples to train on; a model may leave some out."""
        return train

    def left_out(self, train: Examples) -> dict[LeftOut, int]:  # noqa: ARG002
        """Return how many examples ``learnable`` leaves out, by reason."""
        return {}

    # --- the protocol ----------------------------------------------------------------------

    def fit(self, data: ModelData, context: FitContext) -> FitResult:
        """Train; see ``protocol.Model.fit``."""
        check_training_data(self.spec, self.form, data)
        runtime.start(context.threads)
        runtime.seed_everything(context.seed)
        train = self.learnable(data.train)
        choosing, calibration = self.validation_parts(data.validation)
        validation = self.learnable(choosing)
        check_training_data(
            self.spec, self.form, dataclasses.replace(data, train=train, validation=validation)
        )
        self._graph = None
        self.scaling = self.fit_scaling(train)
        self.fitted = self.fit_targets(train)
        network = self.network()
        state = training_loop.train(
            network,
            self._examples_to_learn(train, context),
            self._scaled(validation),
            self.training,
            context,
            [self.spec.name, self.settings.model_dump(mode="json")],
            self.corrected,
        )
        self.weights = state.best
        network.set_weights(list(self.weights))
        rows = self._inputs(choosing.inputs)
        outputs = batched_predictor(network, rows.shape[1:])(rows)["output"]
        self.fitted |= self.fit_outputs(choosing, outputs)
        if calibration is not None:
            self.fitted |= self.fit_intervals(calibration)
        if context.checkpoint_directory:
            checkpoint.clear(context.checkpoint_directory)
        if context.stream is not None:
            return FitResult(state.history, dict(self.fitted))
        return FitResult(state.history, dict(self.fitted), self.left_out(data.train))

    def predict(self, inputs: Floats32) -> Predictions:
        """Predict raw inputs; see ``protocol.Model.predict``."""
        rows = checked_inputs(self.spec, inputs)
        if not len(rows):
            return empty_predictions(self.spec, self.form)
        self.prediction_graph()
        outputs = self._predict(rows)
        dtypes = {tensor.name: tensor.dtype for tensor in self.spec.form(self.form).outputs}
        return {name: outputs[name].astype(dtype) for name, dtype in dtypes.items()}

    def prediction_graph(self) -> Any:
        """Return the functional ``keras.Model`` that is exported: raw features in, predictions out.

        Raises ``DwcpError`` if the model was not trained.
        """
        self._fitted_scaling()
        if self._graph is None:
            runtime.start()
            import keras

            features = keras.Input(self.spec.input.shape, name=self.spec.input.name)
            network = self.network()
            scaled = self._scaled_layers(features)
            outputs = self.output_tensors(features, scaled, network(scaled))
            self._graph = keras.Model(features, outputs, name=self.spec.name)
            network.set_weights(list(self.weights))
            self._predict = batched_predictor(self._graph, self.spec.input.shape)
        return self._graph

    def save(self, directory: Path) -> None:
        """Write the trained model; see ``protocol.Model.save``."""
        description = {
            "name": self.spec.name,
            "settings": self.settings.model_dump(mode="json"),
            "fitted": self.fitted,
            "scaling": dataclasses.asdict(self._fitted_scaling()),
        }
        arrays = {f"weights_{place:02d}": array for place, array in enumerate(self.weights)}
        storage.write_model(directory, description, arrays)

    def restore(self, directory: Path, stored: Mapping[str, Any]) -> None:
        """Load what ``save`` wrote."""
        arrays = storage.read_arrays(directory, stored)
        self.fitted = dict(stored["fitted"])
        self.scaling = Scaling.from_json(stored["scaling"])
        self.weights = tuple(arrays[name] for name in sorted(arrays))
        self._graph = None

    def _fitted_scaling(self) -> Scaling:
        if self.scaling is None:
            raise DwcpError(
                f"{self.spec.name} is not trained; call fit or load a trained model.",
                code=ErrorCode.NOT_TRAINED,
            )
        return self.scaling

    def _inputs(self, raw: Floats32) -> Floats32:
        wide = raw.reshape(*raw.shape, 1) if len(self.spec.features) == 1 else raw
        return self.shaped(self._fitted_scaling().apply(wide))

    def _scaled(self, examples: Examples) -> Scaled:
        inputs = self._inputs(examples.inputs)
        return Scaled(inputs, self.targets(examples, inputs))

    def _examples_to_learn(self, train: Examples, context: FitContext) -> Scaled | ScaledStream:
        count = self.training.examples_per_epoch
        if context.stream is None or count is None:
            return self._scaled(train)
        return ScaledStream(context.stream, context.seed, count, self._scaled)

    def _scaled_layers(self, features: Any) -> Any:
        import keras

        wide = features
        if len(self.spec.features) == 1:
            wide = keras.layers.Reshape((*self.spec.input.shape, 1), name="one_feature")(features)
        return self._fitted_scaling().layers(wide)


def batched_predictor(model: Any, shape: tuple[int, ...]) -> Callable[[Floats32], dict[str, Array]]:
    """Return a function that predicts rows of ``shape`` with a Keras model, in batches.

    It returns the outputs by name; a single output is named ``output``.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec((None, *shape), tf.float32)]
    function = tf.function(lambda rows: model(rows, training=False), input_signature=signature)

    def predict(inputs: Floats32) -> dict[str, Array]:
        parts = []
        for start in range(0, len(inputs), PREDICTION_BATCH):
            given = function(np.ascontiguousarray(inputs[start : start + PREDICTION_BATCH]))
            parts.append(given if isinstance(given, dict) else {"output": given})
        return {name: np.concatenate([part[name].numpy() for part in parts]) for name in parts[0]}

    return predict


def first_largest(probabilities: Any) -> Any:
    """Return the int64 index of the largest entry of the last axis, the first where two tie.

    An ``argmax`` of integers: Keras's own of floats treats -0.0 with bit operations that ONNX
    does not have.
    """
    from keras import ops

    largest = ops.cast(
        probabilities >= ops.max(probabilities, axis=-1, keepdims=True), dtype="int32"
    )
    return ops.cast(ops.argmax(largest, axis=-1), dtype="int64")
