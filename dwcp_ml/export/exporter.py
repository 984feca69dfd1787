"""Export a model: write the files, compare them with the trained model, time them.

An export that differs is a result, not an exception: the record says ``success: false`` and why, in
numbers, and the gate decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import KERAS_NAME, ONNX_NAME, PICKLE_NAME, SAVED_MODEL_NAME
from dwcp_ml.contract.errors import ErrorCode, ExportFailed, UsageError, did_you_mean
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import ExportRecord, Parity
from dwcp_ml.export import predictions
from dwcp_ml.export.forest import forest_onnx
from dwcp_ml.export.keras import keras_onnx, write_keras, write_saved_model
from dwcp_ml.export.latency import Latency, measure
from dwcp_ml.export.parity import Predictions, compare
from dwcp_ml.export.probes import probe_inputs
from dwcp_ml.files import cant_write

if TYPE_CHECKING:
    import keras

    from dwcp_ml.models.forest import ForestArrays
    from dwcp_ml.models.protocol import Model

FORMATS: Final = ("keras", "onnx", "savedmodel")
"""The formats to choose from. ONNX is always written, because the server reads nothing else; the
forest is always written as ONNX and pickle."""

PROBES: Final = 10_000

Progress = Callable[[float, str], None]
"""Called with the finished share, 0 to 1, and the next step."""


@runtime_checkable
class KerasTrained(Protocol):
    """A model whose predictions come from a Keras graph."""

    def prediction_graph(self) -> keras.Model:
        """Return the graph from ``features`` to the outputs of the form."""
        ...


@runtime_checkable
class ForestTrained(Protocol):
    """A model whose predictions come from an isolation forest."""

    pickled: bytes
    fitted: dict[str, float]

    def forest(self) -> ForestArrays:
        """Return the trained forest."""
        ...


@dataclass(frozen=True)
class _Export:
    """One exported format: its name, its file or directory, and how to predict with that."""

    name: str
    path: Path
    predict: Callable[[Path, NDArray[np.float32]], Predictions]


def export_model(
    model: Model,
    test_inputs: NDArray[np.float32],
    directory: Path,
    *,
    version: str,
    formats: Sequence[str] = FORMATS,
    seed: int = 42,
    progress: Progress | None = None,
) -> ExportRecord:
    """Write the exports of ``model`` into ``directory``, compare them with it and time them.

    Parameters
    ----------
    model
        The trained model: a Keras one, or the forest. Its decisions are compared around
        ``fitted["threshold"]``.
    test_inputs : float32 of shape (n, *spec.input.shape)
        The whole test split.
    directory
        A staging directory; the files get their names of the bundle in it.
    formats
        Those of ``FORMATS`` to write; see there.
    seed
        Seed of the 10,000 random and extreme inputs.

    Returns
    -------
    ExportRecord
        ``success`` is false, with the reason, where an export can't be written or read back, or
        differs from the model by more than the tolerance, or flips a decision.

    Raises
    ------
    UsageError
        If a format is unknown.
    DwcpError
        If the files can't be written: disk full, no permission.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UsageError(
            f"There is no export format '{unknown[0]}': {did_you_mean(unknown[0], FORMATS)}.",
            code=ErrorCode.UNKNOWN_NAME,
            subject=unknown[0],
        )
    record: dict[str, Any] = {"model_name": model.spec.name, "version": version}
    report = progress or (lambda _share, _text: None)
    try:
        report(0.0, "writing the exports")
        exports = _write(model, directory, formats)
        sizes = {export.name: _size_mb(export.path) for export in exports}
        record |= {"formats": tuple(sizes), "sizes_mb": sizes}
        record["model_size_mb"] = max(sizes.values())
        record["parity"] = _parity(model, exports, test_inputs, seed, report)
        report(0.9, "measuring the latency")
        latency = _latency(model.spec, directory, test_inputs, seed)
        record |= {"latency_p50_ms": latency.p50_ms, "latency_p99_ms": latency.p99_ms}
        record["latency_attempts"] = latency.attempts
        reason = parity_fault(record["parity"])
    except ExportFailed as error:
        reason = str(error)
    except OSError as error:
        what = f"the exports of {model.spec.name} to {directory}"
        raise cant_write(what, error) from error
    return ExportRecord(success=reason is None, reason=reason, **record)


def parity_fault(parity: Mapping[str, Parity]) -> str | None:
    """Return which exports differ and by how much as a sentence, ``None`` if none does.

    Examples
    --------
    >>> off = Parity(
    ...     rows=9, largest_relative_difference=0.002, flipped_decisions=1, tolerance=1e-4
    ... )
    >>> parity_fault({"onnx": off})  # doctest: +NORMALIZE_WHITESPACE
    'onnx differs from the trained model by 0.002 where 0.0001 is tolerated and flips 1 decision
    on 9 inputs.'
    """
    faults = []
    for name, result in parity.items():
        if result.equal:
            continue
        parts = []
        if result.largest_relative_difference > result.tolerance:
            parts.append(
                f"differs from the trained model by {result.largest_relative_difference:.3g} "
                f"where {result.tolerance:g} is tolerated"
            )
        if result.flipped_decisions:
            plural = "" if result.flipped_decisions == 1 else "s"
            parts.append(f"flips {result.flipped_decisions:,} decision{plural}")
        faults.append(f"{name} {' and '.join(parts)} on {result.rows:,} inputs")
    return "; ".join(faults) + "." if faults else None


def _parity(
    model: Model,
    exports: Sequence[_Export],
    test_inputs: NDArray[np.float32],
    seed: int,
    report: Progress,
) -> dict[str, Parity]:
    inputs = probe_inputs(model.spec, test_inputs, n=PROBES, seed=seed)
    outputs = model.spec.form(model.form).outputs
    report(0.2, "predicting with the trained model")
    reference = model.predict(inputs)
    threshold = model.fitted.get("threshold")
    results = {}
    for position, export in enumerate(exports):
        report(0.3 + 0.6 * position / len(exports), f"comparing {export.name}")
        results[export.name] = compare(
            reference, export.predict(export.path, inputs), outputs, threshold=threshold
        )
    return results


def _latency(
    spec: ModelSpec, directory: Path, test_inputs: NDArray[np.float32], seed: int
) -> Latency:
    instances = (
        test_inputs if len(test_inputs) else probe_inputs(spec, test_inputs, n=64, seed=seed)
    )
    return measure((directory / ONNX_NAME).read_bytes(), instances)


def _size_mb(path: Path) -> float:
    """Return the size of a file, or of all files below a directory, in MB of 10^6 bytes."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def _write(model: Model, directory: Path, formats: Sequence[str]) -> list[_Export]:
    if isinstance(model, KerasTrained):
        return _write_keras_model(model.prediction_graph(), model, directory, formats)
    if isinstance(model, ForestTrained):
        return _write_forest(model.forest(), model, directory)
    raise ExportFailed(
        f"{model.spec.name}: a {type(model).__name__} has no export.",
        code=ErrorCode.UNSUPPORTED,
        subject=type(model).__name__,
    )


def _write_keras_model(
    graph: keras.Model, model: Model, directory: Path, formats: Sequence[str]
) -> list[_Export]:
    onnx_path = directory / ONNX_NAME
    onnx_path.write_bytes(keras_onnx(graph, model.spec, model.form))
    exports = [_Export("onnx", onnx_path, predictions.onnx_predictions)]
    if "savedmodel" in formats:
        base = directory / SAVED_MODEL_NAME
        write_saved_model(graph, model.spec, base)
        exports.append(_Export("savedmodel", base, predictions.saved_model_predictions))
    if "keras" in formats:
        path = directory / KERAS_NAME
        write_keras(graph, model.spec, path)
        exports.append(_Export("keras", path, predictions.keras_predictions))
    return exports


def _write_forest(forest: ForestArrays, model: Any, directory: Path) -> list[_Export]:
    onnx_path, pickle_path = directory / ONNX_NAME, directory / PICKLE_NAME
    onnx_path.write_bytes(forest_onnx(model.spec, model.form, forest, model.fitted["threshold"]))
    if not model.pickled:
        raise ExportFailed(
            f"{model.spec.name}: {PICKLE_NAME} is missing; train the model again.",
            code=ErrorCode.MISSING,
            subject=PICKLE_NAME,
        )
    pickle_path.write_bytes(model.pickled)
    of_pickle = partial(predictions.pickle_predictions, trained=forest)
    return [
        _Export("onnx", onnx_path, predictions.onnx_predictions),
        _Export("pickle", pickle_path, of_pickle),
    ]
