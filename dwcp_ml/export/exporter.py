"""All of an export in order: the files, their equality with what was trained, their speed.

An export that differs is a result, not an exception: the record says ``success: false`` and why, in
numbers, and the gate decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import KERAS_NAME, ONNX_NAME, PICKLE_NAME, SAVED_MODEL_NAME
from dwcp_ml.contract.errors import ExportFailed, UsageError, did_you_mean
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import ExportRecord, Parity
from dwcp_ml.export import predictions
from dwcp_ml.export.forest import forest_onnx
from dwcp_ml.export.keras import keras_onnx, write_keras, write_saved_model
from dwcp_ml.export.latency import Latency, measure
from dwcp_ml.export.parity import Answers, compare
from dwcp_ml.export.probes import probe_inputs
from dwcp_ml.files import cant_write

if TYPE_CHECKING:
    import keras

    from dwcp_ml.models.forest import ForestArrays
    from dwcp_ml.models.protocol import Model

FORMATS: Final = ("keras", "onnx", "savedmodel")
"""What may be asked for. ONNX is always written, because the server reads nothing else; the forest
is written as ONNX and pickle, whatever is asked for."""

PROBES: Final = 10_000

Progress = Callable[[float, str], None]
"""Called with the share that is done, 0 to 1, and what comes next."""


@runtime_checkable
class KerasTrained(Protocol):
    """A model whose answer is a Keras graph."""

    def answer_graph(self) -> keras.Model:
        """Return the graph from ``features`` to the outputs of the form."""
        ...


@runtime_checkable
class ForestTrained(Protocol):
    """A model whose answer is that of an isolation forest."""

    pickled: bytes
    fitted: dict[str, float]

    def forest(self) -> ForestArrays:
        """Return the trained forest."""
        ...


@dataclass(frozen=True)
class _Export:
    """One exported format: its name, its file or directory, and how it answers."""

    name: str
    path: Path
    answer: Callable[[NDArray[np.float32]], Answers]


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
    version
        The model's version, for the record.
    formats
        Those of ``FORMATS`` to write; see there.
    seed
        Of the 10,000 random and extreme inputs.
    progress
        Told of each step.

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
            f"There is no export format '{unknown[0]}': {did_you_mean(unknown[0], FORMATS)}."
        )
    record: dict[str, Any] = {"model_name": model.spec.name, "version": version}
    tell = progress or (lambda _share, _text: None)
    try:
        tell(0.0, "writing the exports")
        exports = _write(model, directory, formats)
        sizes = {export.name: _size_mb(export.path) for export in exports}
        record |= {"formats": tuple(sizes), "sizes_mb": sizes}
        record["model_size_mb"] = max(sizes.values())
        record["parity"] = _parity(model, exports, test_inputs, seed, tell)
        tell(0.9, "measuring the latency")
        latency = _latency(model.spec, directory, test_inputs, seed)
        record |= {"latency_p50_ms": latency.p50_ms, "latency_p99_ms": latency.p99_ms}
        reason = unequal(record["parity"])
    except ExportFailed as error:
        reason = str(error)
    except OSError as error:
        what = f"the exports of {model.spec.name} to {directory}"
        raise cant_write(what, error) from error
    return ExportRecord(success=reason is None, reason=reason, **record)


def unequal(parity: Mapping[str, Parity]) -> str | None:
    """Return a sentence that names the exports that differ and by how much, ``None`` if none does.

    Examples
    --------
    >>> off = Parity(
    ...     rows=9, largest_relative_difference=0.002, flipped_decisions=1, tolerance=1e-4
    ... )
    >>> unequal({"onnx": off})  # doctest: +NORMALIZE_WHITESPACE
    'onnx differs from what was trained by 0.002 where 0.0001 is tolerated and flips 1 decision
    on 9 inputs.'
    """
    faults = []
    for name, found in parity.items():
        if found.equal:
            continue
        parts = []
        if found.largest_relative_difference > found.tolerance:
            parts.append(
                f"differs from what was trained by {found.largest_relative_difference:.3g} "
                f"where {found.tolerance:g} is tolerated"
            )
        if found.flipped_decisions:
            plural = "" if found.flipped_decisions == 1 else "s"
            parts.append(f"flips {found.flipped_decisions:,} decision{plural}")
        faults.append(f"{name} {' and '.join(parts)} on {found.rows:,} inputs")
    return "; ".join(faults) + "." if faults else None


def _parity(
    model: Model,
    exports: Sequence[_Export],
    test_inputs: NDArray[np.float32],
    seed: int,
    tell: Progress,
) -> dict[str, Parity]:
    inputs = probe_inputs(model.spec, test_inputs, n=PROBES, seed=seed)
    outputs = model.spec.form(model.form).outputs
    tell(0.2, "asking the trained model")
    reference = model.predict(inputs)
    threshold = model.fitted.get("threshold")
    found = {}
    for position, export in enumerate(exports):
        tell(0.3 + 0.6 * position / len(exports), f"comparing {export.name}")
        found[export.name] = compare(reference, export.answer(inputs), outputs, threshold=threshold)
    return found


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
        return _write_keras_model(model.answer_graph(), model, directory, formats)
    if isinstance(model, ForestTrained):
        return _write_forest(model.forest(), model, directory)
    raise ExportFailed(f"{model.spec.name}: a {type(model).__name__} has no export.")


def _write_keras_model(
    graph: keras.Model, model: Model, directory: Path, formats: Sequence[str]
) -> list[_Export]:
    onnx_path = directory / ONNX_NAME
    onnx_path.write_bytes(keras_onnx(graph, model.spec, model.form))
    exports = [_Export("onnx", onnx_path, lambda rows: predictions.onnx_answers(onnx_path, rows))]
    if "savedmodel" in formats:
        base = directory / SAVED_MODEL_NAME
        write_saved_model(graph, model.spec, base)
        exports.append(
            _Export("savedmodel", base, lambda rows: predictions.saved_model_answers(base, rows))
        )
    if "keras" in formats:
        path = directory / KERAS_NAME
        write_keras(graph, model.spec, path)
        exports.append(_Export("keras", path, lambda rows: predictions.keras_answers(path, rows)))
    return exports


def _write_forest(forest: ForestArrays, model: Any, directory: Path) -> list[_Export]:
    onnx_path, pickle_path = directory / ONNX_NAME, directory / PICKLE_NAME
    onnx_path.write_bytes(forest_onnx(model.spec, model.form, forest, model.fitted["threshold"]))
    if not model.pickled:
        raise ExportFailed(f"{model.spec.name}: {PICKLE_NAME} was not kept; train the model again.")
    pickle_path.write_bytes(model.pickled)
    return [
        _Export("onnx", onnx_path, lambda rows: predictions.onnx_answers(onnx_path, rows)),
        _Export(
            "pickle",
            pickle_path,
            lambda rows: predictions.pickle_answers(pickle_path, rows, forest),
        ),
    ]
