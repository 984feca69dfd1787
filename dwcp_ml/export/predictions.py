"""The predictions of each exported file, read back from the disk as its user would.

Every function takes float32 inputs of shape ``(n, *spec.input.shape)`` and returns a dict of output
name to array of shape ``(n, ...)``. ``model.pkl`` is the exception: it is never unpickled,
its numbers are extracted instead (see ``pickled.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.export.keras import SERVABLE_VERSION, failing, suppressed_logs
from dwcp_ml.export.latency import session
from dwcp_ml.export.pickled import read_pickled_forest
from dwcp_ml.models.forest import ForestArrays

BATCH: Final = 2048
"""Rows per call; bounds the memory."""

Predictions = dict[str, NDArray[Any]]


def onnx_predictions(path: Path, inputs: NDArray[np.float32]) -> Predictions:
    """Return the predictions of ``model.onnx`` in ONNX Runtime; see ``graph_predictions``."""
    return graph_predictions(path.read_bytes(), inputs)


def graph_predictions(onnx: bytes, inputs: NDArray[np.float32]) -> Predictions:
    """Return the predictions of the bytes of an ONNX graph in ONNX Runtime.

    Raises
    ------
    ExportFailed
        If the runtime can't load or run it.
    """
    running = session(onnx)
    names = [output.name for output in running.get_outputs()]

    def predict(rows: NDArray[np.float32]) -> Mapping[str, Any]:
        return dict(zip(names, running.run(None, {"features": rows}), strict=True))

    return _batched("ONNX", predict, inputs)


def saved_model_predictions(directory: Path, inputs: NDArray[np.float32]) -> Predictions:
    """Return the predictions of the ``serving_default`` of a SavedModel base path.

    Raises
    ------
    ExportFailed
        If TensorFlow does not load it or can't run it.
    """
    with suppressed_logs():
        import tensorflow as tf

        with failing("The SavedModel can't be read back"):
            loaded = tf.saved_model.load(str(directory / SERVABLE_VERSION))
            function = loaded.signatures["serving_default"]

        def predict(rows: NDArray[np.float32]) -> Mapping[str, Any]:
            return {name: t.numpy() for name, t in function(features=tf.constant(rows)).items()}

        return _batched("The SavedModel", predict, inputs)


def keras_predictions(path: Path, inputs: NDArray[np.float32]) -> Predictions:
    """Return the predictions of a ``.keras`` file, loaded in safe mode, which runs no code of it.

    Raises
    ------
    ExportFailed
        If Keras does not load it or can't run it.
    """
    with suppressed_logs():
        import keras

        with failing("The .keras file can't be read back"):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)

        def predict(rows: NDArray[np.float32]) -> Mapping[str, Any]:
            outputs: Mapping[str, Any] = model.predict_on_batch(rows)
            return outputs

        return _batched("The .keras file", predict, inputs)


def pickle_predictions(
    path: Path, inputs: NDArray[np.float32], trained: ForestArrays
) -> Predictions:
    """Return the predictions of the forest in ``model.pkl``; the file is listed, not unpickled.

    Raises
    ------
    ExportFailed
        If it does not hold a forest like ``trained``.
    """
    return read_pickled_forest(path.read_bytes(), trained).predict(inputs)


def _batched(
    name: str,
    predict: Callable[[NDArray[np.float32]], Mapping[str, Any]],
    inputs: NDArray[np.float32],
) -> Predictions:
    with failing(f"{name} can't predict {len(inputs)} inputs"):
        parts = [
            predict(np.ascontiguousarray(inputs[start : start + BATCH]))
            for start in range(0, len(inputs), BATCH)
        ]
    if not parts:
        return {}
    return {key: np.concatenate([np.asarray(part[key]) for part in parts]) for key in parts[0]}
