"""The three Keras models as ONNX, as a SavedModel and as a ``.keras`` file.

All three are made from the model's *prediction graph*: a functional Keras model with the input
``features`` (raw float32) and a dict of outputs named as the contract names them. TensorFlow is
imported inside the functions only; their log messages below an error are suppressed.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx

from dwcp_ml.contract.errors import ExportFailed
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.export.onnx_graph import OPSET, canonical, to_bytes
from dwcp_ml.export.onnx_recurrent import simplify

if TYPE_CHECKING:
    import keras

SERVABLE_VERSION: Final = "1"
"""Directory below the base path, as TensorFlow Serving requires: a whole number."""

_LOGGERS: Final = ("tensorflow", "tf2onnx", "keras", "absl")


@contextmanager
def suppressed_logs() -> Iterator[None]:
    """Suppress warnings and log messages below an error of TensorFlow, Keras and tf2onnx."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read once, when TensorFlow is imported
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextmanager
def failing(what: str) -> Iterator[None]:
    """Turn any error into ``ExportFailed``: the libraries raise errors of many types.

    Parameters
    ----------
    what
        What failed, without a full stop; the first line of the error follows.
    """
    try:
        yield
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ExportFailed(f"{what}: {reason}.") from error


def keras_onnx(graph: keras.Model, spec: ModelSpec, form: str) -> bytes:
    """Return the ONNX file of an prediction graph; the same weights give the same bytes.

    Parameters
    ----------
    spec, form
        The contract that it must match: names, shapes, dtypes.

    Raises
    ------
    ExportFailed
        If the conversion fails, gives another signature than the contract's, or a recurrent
        layer that is not one ONNX operator.
    """
    with suppressed_logs(), tempfile.TemporaryDirectory(prefix="dwcp-onnx-") as directory:
        path = Path(directory) / "model.onnx"
        with failing(_cant_write(spec, "ONNX")):
            import keras

            signature = keras.InputSpec(
                shape=(None, *spec.input.shape), dtype=spec.input.dtype, name=spec.input.name
            )
            plain_dense(graph).export(
                path, format="onnx", verbose=False, input_signature=[signature], opset_version=OPSET
            )
            converted = onnx.load(path)
    return to_bytes(canonical(simplify(canonical(converted, spec, form)), spec, form))


def plain_dense(graph: keras.Model) -> keras.Model:
    """Return the same model with ``TimeDistributed(Dense)`` written as ``Dense``.

    A ``Dense`` already works on the last axis, step by step; tf2onnx unrolls the wrapper into four
    nodes a step. Weights are the same, in the same order. Without such a layer ``graph`` itself is
    returned.
    """
    import keras

    class PerStep(keras.layers.Dense):  # type: ignore[misc]
        """A ``Dense`` that can be called like the wrapper that it replaces."""

        def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:  # noqa: ARG002
            return super().call(inputs, training=training)

    def wrapped(layer: keras.Layer) -> bool:
        inner = getattr(layer, "layer", None)
        return isinstance(layer, keras.layers.TimeDistributed) and type(inner) is keras.layers.Dense

    def plain(layer: keras.Layer) -> keras.Layer:
        if wrapped(layer):
            return PerStep.from_config(layer.layer.get_config() | {"name": layer.name})
        return layer.__class__.from_config(layer.get_config())

    if not any(wrapped(layer) for layer in _layers(graph)):
        return graph
    copy = keras.models.clone_model(graph, clone_function=plain, recursive=True)
    copy.set_weights(graph.get_weights())
    return copy


def write_saved_model(graph: keras.Model, spec: ModelSpec, directory: Path) -> None:
    """Write ``directory/1``: a SavedModel whose ``serving_default`` names its outputs.

    ``directory`` is the base path of TensorFlow Serving.

    Raises
    ------
    ExportFailed
        If TensorFlow can't write it.
    """
    with suppressed_logs(), failing(_cant_write(spec, "a SavedModel")):
        import keras
        import tensorflow as tf

        archive = keras.export.ExportArchive()
        archive.track(graph)
        archive.add_endpoint(
            "serving_default",
            fn=lambda features: graph(features, training=False),
            input_signature=[
                tf.TensorSpec((None, *spec.input.shape), tf.float32, name=spec.input.name)
            ],
        )
        archive.write_out(str(directory / SERVABLE_VERSION), verbose=False)


def write_keras(graph: keras.Model, spec: ModelSpec, path: Path) -> None:
    """Write the prediction graph as a ``.keras`` file (a zip of configuration and weights).

    Raises
    ------
    ExportFailed
        If Keras can't write it.
    """
    with suppressed_logs(), failing(_cant_write(spec, "a .keras file")):
        graph.save(path)


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)


def _cant_write(spec: ModelSpec, target: str) -> str:
    return f"{spec.name}: the prediction graph can't be written as {target}"
