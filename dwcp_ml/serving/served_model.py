"""One model in memory: a verified bundle and its ONNX Runtime session."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from dwcp_ml.contract.bundle import Manifest, TensorRecord, contract_digest, printable
from dwcp_ml.contract.errors import BundleRefused, ErrorCode
from dwcp_ml.contract.intervals import LOWER, UPPER, bounds
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.serving.tensors import Rows

Outputs = dict[str, NDArray[Any]]
"""The outputs by name, each of shape (n, *shape)."""

_WARM_UP_RUNS: Final = 5


class ServedModel:
    """A loaded model.

    Parameters
    ----------
    manifest, digest
        The bundle's manifest, and the SHA-256 of its bytes.
    onnx
        The verified bytes of the graph.
    """

    def __init__(self, manifest: Manifest, digest: str, onnx: bytes) -> None:
        self.manifest = manifest
        self.digest = digest
        self.contract = contract_digest(manifest)
        self.name = manifest.name
        self.version = manifest.version
        self.input: TensorRecord = manifest.inputs[0]
        self.outputs: tuple[TensorRecord, ...] = manifest.outputs
        self.optional_outputs = () if manifest.interval is None else (LOWER, UPPER)
        self.shape = self.input.shape
        self._session = _session(onnx)
        self._names = [output.name for output in self.outputs]
        self.ready = False

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        digest: str | None = None,
        public_key: Path | None = None,
        strict_location: bool = False,
    ) -> ServedModel:
        """Verify the bundle in ``path`` and load its graph; nothing else of it is ever loaded.

        The parameters are those of ``dwcp_ml.export.verify.open_bundle``.

        Raises
        ------
        BundleRefused
            If the bundle fails its verification, or its graph does not run.
        """
        bundle = open_bundle(
            path, digest=digest, public_key=public_key, strict_location=strict_location
        )
        try:
            return cls(bundle.manifest, bundle.digest, bundle.onnx)
        except _ORT_ERRORS as error:
            reason = printable(str(error).splitlines()[0][:200]).rstrip(".")
            raise BundleRefused(
                f"{path}: ONNX Runtime rejects the graph: {reason}.",
                code=ErrorCode.MALFORMED,
                subject=path.name,
            ) from error

    def run(self, rows: Rows) -> Outputs:
        """Return the predictions for ``rows``, float32 of shape (n, *shape)."""
        outputs = self._session.run(self._names, {self.input.name: rows})
        return dict(zip(self._names, outputs, strict=True))

    def output(self, name: str, outputs: Outputs, rows: slice) -> NDArray[Any]:
        """Return some rows of an output, or of one of ``optional_outputs``, which it computes."""
        interval = self.manifest.interval
        if interval is None or name not in self.optional_outputs:
            return outputs[name][rows]
        lower, upper = bounds(outputs[interval.output][rows], interval.half_width)
        return lower if name == LOWER else upper

    def warm_up(self) -> None:
        """Run a few inferences, so that the first request is as fast as the others.

        Raises
        ------
        BundleRefused
            If a prediction is not finite or not of the shape in the manifest.
        """
        rows = np.ones((2, *self.shape), np.float32)
        for _ in range(_WARM_UP_RUNS):
            outputs = self.run(rows)
            self.run(rows[:1])
        for tensor in self.outputs:
            values = outputs[tensor.name]
            if values.shape != (2, *tensor.shape) or not np.isfinite(values).all():
                raise BundleRefused(
                    f"{self.name} {self.version}: the graph's {tensor.name} has shape "
                    f"{values.shape} or is not finite in the warm-up; export the model again.",
                    code=ErrorCode.NOT_FINITE,
                    subject=tensor.name,
                )
        self.ready = True


def _session(onnx: bytes) -> Any:
    options = ort.SessionOptions()
    # One thread: the models are so small that distributing the work takes longer than the work, and
    # the event loop and other pods of the node need the other cores.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


_ORT_ERRORS: Final = (
    ort.capi.onnxruntime_pybind11_state.Fail,
    ort.capi.onnxruntime_pybind11_state.InvalidArgument,
    ort.capi.onnxruntime_pybind11_state.InvalidGraph,
    ort.capi.onnxruntime_pybind11_state.InvalidProtobuf,
    ort.capi.onnxruntime_pybind11_state.NotImplemented,
    ort.capi.onnxruntime_pybind11_state.RuntimeException,
)
