"""A small Python client of V2 over gRPC, for checks and tests; see ``client``."""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.serving.client import DTYPES, Predictions

_PINGS: Final = (("grpc.keepalive_time_ms", 10_000), ("grpc.keepalive_timeout_ms", 2_000))
"""A connection that goes silent without a reset is found and replaced."""


class GrpcClient:
    """V2 over gRPC.

    Parameters
    ----------
    address
        ``host:port``.
    timeout_seconds
        For each call.
    """

    def __init__(self, address: str, timeout_seconds: float = 10.0) -> None:
        import grpc

        from dwcp_ml.serving import proto

        self.address = address.removeprefix("grpc://")
        self._timeout = timeout_seconds
        self._request = proto.message("ModelInferRequest")
        self._channel = grpc.insecure_channel(self.address, options=_PINGS)
        self._call = self._channel.unary_unary(
            f"/{proto.SERVICE}/ModelInfer",
            request_serializer=self._request.SerializeToString,
            response_deserializer=proto.message("ModelInferResponse").FromString,
        )
        self._failure: type[Exception] = grpc.RpcError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def infer(self, model: str, rows: NDArray[np.float32]) -> Predictions:
        """Request predictions, and return them as arrays.

        Raises
        ------
        DwcpError
            If the call fails.
        """
        request = self._request(model_name=model)
        request.inputs.add(name="features", datatype="FP32", shape=rows.shape)
        request.raw_input_contents.append(rows.astype("<f4").tobytes())
        try:
            response = self._call(request, timeout=self._timeout)
        except self._failure as error:
            details = getattr(error, "details", str)()
            raise DwcpError(f"{model} over gRPC at {self.address}: {details}.") from error
        raw = zip(response.outputs, response.raw_output_contents, strict=True)
        return {
            output.name: np.frombuffer(content, DTYPES[output.datatype]).reshape(output.shape)
            for output, content in raw
        }

    def status_of(self, model: str, rows: NDArray[np.float32], version: str = "") -> str:
        """Return the name of the status that a call ends with, e.g. ``NOT_FOUND``."""
        request = self._request(model_name=model, model_version=version)
        request.inputs.add(name="features", datatype="FP32", shape=rows.shape)
        request.raw_input_contents.append(rows.astype("<f4").tobytes())
        try:
            self._call(request, timeout=self._timeout)
        except self._failure as error:
            code = getattr(error, "code", None)
            return str(code().name) if code else type(error).__name__
        return "OK"
