"""How each exported file answers, read back from the disk as its user will read it.

Every function takes float32 inputs of shape ``(n, *spec.input.shape)`` and returns a dict of output
name to array of shape ``(n, ...)``. ``model.pkl`` is the exception: nothing of ours unpickles, so
its numbers are read out of it instead (see ``pickled.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ExportFailed
from dwcp_ml.export.keras import SERVABLE_VERSION, quiet
from dwcp_ml.export.latency import session
from dwcp_ml.export.pickled import read_pickled_forest
from dwcp_ml.models.forest import ForestArrays

BATCH: Final = 2048
"""Rows asked at once; bounds the memory, changes no answer."""

Answers = dict[str, NDArray[Any]]


def onnx_answers(path: Path, inputs: NDArray[np.float32]) -> Answers:
    """Return what ``model.onnx`` answers in ONNX Runtime.

    Raises
    ------
    ExportFailed
        If the runtime does not load it or can't run it.
    """
    running = session(path.read_bytes())
    names = [output.name for output in running.get_outputs()]

    def ask(rows: NDArray[np.float32]) -> Mapping[str, Any]:
        return dict(zip(names, running.run(None, {"features": rows}), strict=True))

    return _batched("ONNX", ask, inputs)


def saved_model_answers(directory: Path, inputs: NDArray[np.float32]) -> Answers:
    """Return what the ``serving_default`` of a SavedModel base path answers.

    Raises
    ------
    ExportFailed
        If TensorFlow does not load it or can't run it.
    """
    with quiet():
        import tensorflow as tf

        try:
            loaded = tf.saved_model.load(str(directory / SERVABLE_VERSION))
            function = loaded.signatures["serving_default"]
        except (OSError, KeyError, ValueError) as error:
            raise ExportFailed(f"The SavedModel can't be read back: {error}.") from error

        def ask(rows: NDArray[np.float32]) -> Mapping[str, Any]:
            return {name: t.numpy() for name, t in function(features=tf.constant(rows)).items()}

        return _batched("The SavedModel", ask, inputs)


def keras_answers(path: Path, inputs: NDArray[np.float32]) -> Answers:
    """Return what a ``.keras`` file answers, loaded in safe mode: no code comes with it.

    Raises
    ------
    ExportFailed
        If Keras does not load it or can't run it.
    """
    with quiet():
        import keras

        try:
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
        except Exception as error:  # Keras raises whatever the layer at fault raises
            reason = str(error).strip().splitlines()[0]
            raise ExportFailed(f"The .keras file can't be read back: {reason}") from error

        def ask(rows: NDArray[np.float32]) -> Mapping[str, Any]:
            answers: Mapping[str, Any] = model.predict_on_batch(rows)
            return answers

        return _batched("The .keras file", ask, inputs)


def pickle_answers(path: Path, inputs: NDArray[np.float32], trained: ForestArrays) -> Answers:
    """Return what the forest in ``model.pkl`` answers; the file is listed, not unpickled.

    Raises
    ------
    ExportFailed
        If it does not hold a forest like ``trained``.
    """
    return read_pickled_forest(path.read_bytes(), trained).answer(inputs)


def _batched(
    who: str,
    ask: Callable[[NDArray[np.float32]], Mapping[str, Any]],
    inputs: NDArray[np.float32],
) -> Answers:
    parts: list[Mapping[str, Any]] = []
    for start in range(0, len(inputs), BATCH):
        try:
            parts.append(ask(np.ascontiguousarray(inputs[start : start + BATCH])))
        except Exception as error:  # each runtime has a family of its own
            reason = str(error).strip().splitlines()[0]
            raise ExportFailed(f"{who} can't answer {len(inputs)} inputs: {reason}") from error
    if not parts:
        return {}
    return {name: np.concatenate([np.asarray(p[name]) for p in parts]) for name in parts[0]}
