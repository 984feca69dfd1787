"""V2 over gRPC: the KServe SDK's service, with inference by the engine."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.protobuf.message_factory import GetMessageClass  # type: ignore[import-untyped]
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc.servicer import InferenceServicer

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.exchange import request_id_of
from dwcp_ml.serving.rejections import (
    BadInput,
    ModelFailed,
    ModelUnavailable,
    NotOverTheNetwork,
    RequestRejected,
)
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows, rows_of_bytes, rows_of_typed
from dwcp_ml.serving.v2 import DATATYPES, check_input, check_outputs

MIN_PING_INTERVAL_MS: Final = 1_000
"""A client may ping as often as this, also without a call."""

PING_INTERVAL_MS: Final = 30_000
"""The server pings a client that it has not heard of for this time."""

PING_TIMEOUT_MS: Final = 10_000
"""A connection whose ping has no response after this time is closed."""

_LONG_SECONDS: Final = 0.1
"""A client may have left after this time."""

_MOMENT_SECONDS: Final = 0.001

_log = logging.getLogger(__name__)

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}
_FIELDS: Final = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "INT64": "int64_contents",
    "UINT64": "uint64_contents",
    **dict.fromkeys(("INT32", "INT16", "INT8"), "int_contents"),
    **dict.fromkeys(("UINT32", "UINT16", "UINT8"), "uint_contents"),
}
"""The field of the protocol that holds the values of each numeric type."""


class InferenceService(InferenceServicer):  # type: ignore[misc]
    """The service ``inference.GRPCInferenceService``."""

    def __init__(self, engine: Engine, data_plane: Any, repository: Any) -> None:
        super().__init__(data_plane, repository)
        self._engine = engine

    async def ModelInfer(  # noqa: N802 - the protocol's name
        self, request: pb.ModelInferRequest, context: Any
    ) -> pb.ModelInferResponse:
        """Handle an inference request; a rejection is a status with one sentence."""
        started = time.perf_counter()
        metadata = dict(context.invocation_metadata())
        request_id = request_id_of(_text(metadata.get("x-request-id")) or request.id)
        context.set_trailing_metadata((("x-request-id", request_id),))
        model: ServedModel | None = None
        try:
            model = self._engine.model(request.model_name, request.model_version or None)
            names = check_outputs([output.name for output in request.outputs], model)
            rows = _rows(request, model, self._engine)
            link, observed_at = metadata.get("x-dwcp-link"), metadata.get("x-dwcp-observed-at")
            outputs = await self._predict(model, rows, request_id, _text(link), _text(observed_at))
            response = _response(outputs, model, names, request.id or request_id)
            await _check_client(context, started)
        except asyncio.CancelledError:  # it reset the call, or its deadline has passed
            self._count(model, CLIENT_CLOSED_REQUEST, started)
            raise
        except RequestRejected as rejected:
            self._count(model, rejected.status, started)
            await _abort(context, rejected)
        except Exception:
            _log.exception("request %s failed", request_id)
            self._count(model, 500, started)
            await _abort(context, ModelFailed("The server failed on this request; see its log."))
        self._count(model, 200, started)
        return response

    async def ServerReady(  # noqa: N802
        self,
        request: pb.ServerReadyRequest,  # noqa: ARG002 - the protocol's arguments, here and below
        context: Any,  # noqa: ARG002
    ) -> pb.ServerReadyResponse:
        """Return whether every model is warm and the server is not shutting down."""
        return pb.ServerReadyResponse(ready=self._engine.ready)

    async def ModelReady(  # noqa: N802
        self, request: pb.ModelReadyRequest, context: Any
    ) -> pb.ModelReadyResponse:
        """Return whether a model is warm."""
        await self._check_model(request.name, request.version, context)
        return pb.ModelReadyResponse(ready=self._engine.ready)

    async def ModelMetadata(  # noqa: N802
        self, request: pb.ModelMetadataRequest, context: Any
    ) -> pb.ModelMetadataResponse:
        """Return a model's tensors."""
        await self._check_model(request.name, request.version, context)
        if not self._engine.ready:
            await _abort(context, ModelUnavailable("The server is not ready."))
        response = await super().ModelMetadata(request, context)
        response.versions.append(self._engine.models[request.name].version)
        return response

    async def RepositoryModelLoad(  # noqa: N802
        self,
        request: pb.RepositoryModelLoadRequest,  # noqa: ARG002
        context: Any,
    ) -> NoReturn:
        """Reject: the operator decides at the start what is served."""
        await _abort(context, NotOverTheNetwork("Models are not loaded over the network."))

    async def RepositoryModelUnload(  # noqa: N802
        self,
        request: pb.RepositoryModelUnloadRequest,  # noqa: ARG002
        context: Any,
    ) -> NoReturn:
        """Reject, like loading."""
        await _abort(context, NotOverTheNetwork("Models are not unloaded over the network."))

    async def _check_model(self, name: str, version: str, context: Any) -> None:
        try:
            self._engine.model(name, version or None)
        except RequestRejected as rejected:
            await _abort(context, rejected)

    async def _predict(
        self,
        model: ServedModel,
        rows: Rows,
        request_id: str,
        link: str | None,
        observed_at: str | None,
    ) -> Outputs:
        future: asyncio.Future[Outputs | RequestRejected] = (
            asyncio.get_running_loop().create_future()
        )

        def on_result(result: Outputs | RequestRejected) -> None:
            if not future.done():  # cancelled if the client has left
                future.set_result(result)

        self._engine.submit(
            PredictRequest(model, rows, request_id, link, observed_at, "grpc", on_result)
        )
        result = await future
        if isinstance(result, RequestRejected):
            raise result
        return result

    def count_unreadable(self, method: str) -> None:
        """Count an inference request that could not be parsed."""
        if method == "ModelInfer":
            self._engine.observers.metrics.count(None, BadInput.status, 0.0)

    def _count(self, model: ServedModel | None, code: int, started: float) -> None:
        self._engine.observers.metrics.count(model, code, time.perf_counter() - started)


def grpc_server(service: InferenceService, body_bytes: int) -> Any:
    """Return a server of the service; it runs on the caller's event loop."""
    server = grpc.aio.server(
        ThreadPoolExecutor(1),
        options=[
            ("grpc.max_receive_message_length", body_bytes),
            ("grpc.max_metadata_size", 16 << 10),
            ("grpc.so_reuseport", 0),  # a second server on this port is an error
            # Clients and gateways ping to find silent connections. The defaults of gRPC close the
            # connection of one that pings more than twice in five minutes.
            ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
            ("grpc.keepalive_permit_without_calls", 1),
            # A client that vanishes without a reset does not keep its connection.
            ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
            ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
        ],
    )
    description = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    handlers = {method.name: _handler(service, method) for method in description.methods}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(description.full_name, handlers)]
    )
    return server


def _handler(service: InferenceService, method: Any) -> Any:
    """Return a method's handler; gRPC's own reports bytes that it can't parse as INTERNAL."""
    request_class = GetMessageClass(method.input_type)
    response_class = GetMessageClass(method.output_type)
    respond = getattr(service, method.name)

    def parse(content: bytes) -> Any:
        try:
            return request_class.FromString(content)
        except DecodeError:
            return None

    async def handle(request: Any, context: Any) -> Any:
        if request is None:
            service.count_unreadable(method.name)
            await _abort(
                context, BadInput(f"The bytes are not a valid {request_class.DESCRIPTOR.name}.")
            )
        return await respond(request, context)

    return grpc.unary_unary_rpc_method_handler(handle, parse, response_class.SerializeToString)


def _rows(request: pb.ModelInferRequest, model: ServedModel, engine: Engine) -> Rows:
    if len(request.inputs) != 1:
        raise BadInput(f"{model.name} has one input, '{model.input.name}'.")
    tensor = request.inputs[0]
    check_input(tensor.name, tensor.datatype, model)
    if request.raw_input_contents:
        if len(request.raw_input_contents) != 1 or tensor.HasField("contents"):
            raise BadInput("Values must be in raw_input_contents or in contents, not in both.")
        if tensor.datatype != "FP32":
            raise BadInput("raw_input_contents must be FP32.")
        raw = request.raw_input_contents[0]
        return rows_of_bytes(raw, tensor.shape, model.shape, engine.limits)
    values = getattr(tensor.contents, _FIELDS[tensor.datatype])
    return rows_of_typed(values, tensor.shape, model.shape, engine.limits)


def _response(
    outputs: Outputs, model: ServedModel, names: tuple[str, ...], request_id: str
) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=request_id
    )
    for name in names or outputs:
        values = outputs[name]
        datatype = DATATYPES[values.dtype.name]
        response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        # Raw contents: the protocol wants one form for all outputs, and bytes are the cheapest.
        little = values.dtype.newbyteorder("<") if sys.byteorder == "big" else values.dtype
        response.raw_output_contents.append(values.astype(little, copy=False).tobytes())
    return response


async def _check_client(context: Any, started: float) -> None:
    """Raise CancelledError if the client does not wait for the response any more.

    While a model runs, the event loop does not learn of a reset; afterwards it needs a moment.
    """
    remaining = context.time_remaining()
    if remaining is not None and remaining <= 0.0:
        raise asyncio.CancelledError
    if time.perf_counter() - started > _LONG_SECONDS:
        await asyncio.sleep(_MOMENT_SECONDS)


async def _abort(context: Any, rejected: RequestRejected) -> NoReturn:
    await context.abort(_CODES[rejected.status], str(rejected))
    raise AssertionError("abort raises")


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
