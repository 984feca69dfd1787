"""V2 and feedback over gRPC, with gRPC's standard health service and reflection."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection, reflection_pb2  # type: ignore[import-untyped]

from dwcp_ml.contract.codes import CLIENT_CLOSED_REQUEST
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.serving import grpc_feedback, proto
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.grpc_codec import Grpc
from dwcp_ml.serving.headers import (
    LINK,
    MIRRORED,
    OBSERVED_AT,
    REQUEST_ID,
    link_of,
    request_id_of,
)
from dwcp_ml.serving.http_routes import model_metadata, server_metadata
from dwcp_ml.serving.proto.fields import MAX_FIELDS, has_few_fields
from dwcp_ml.serving.rejections import (
    BadInput,
    ModelFailed,
    ModelUnavailable,
    NotOverTheNetwork,
    RequestRejected,
    TooLarge,
)
from dwcp_ml.serving.request import Encoded, PredictRequest
from dwcp_ml.serving.served_model import ServedModel

MIN_PING_INTERVAL_MS: Final = 1_000
"""A client may ping as often as this, also without a call."""

PING_INTERVAL_MS: Final = 30_000
"""The server pings a client that it has not heard of for this time."""

PING_TIMEOUT_MS: Final = 10_000
"""A connection whose ping has no response after this time is closed."""

_MIN_AGE_SECONDS: Final = 1.0
"""The age that a connection may reach however short the drain is."""

_LONG_SECONDS: Final = 0.05
"""A client may have left after this time."""

_MOMENT_SECONDS: Final = 0.001

_MAX_WATCHES: Final = 64
"""Maximum clients that watch the health of the server."""

_log = logging.getLogger(__name__)

_INFER: Final = f"/{proto.SERVICE}/ModelInfer"

_READ: Final = frozenset({REQUEST_ID, LINK, OBSERVED_AT, MIRRORED})

_Request: Final = proto.message("ModelInferRequest")

_Respond = Callable[[Any], dict[str, object]]
"""Returns the fields of the response to a request."""

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    503: grpc.StatusCode.UNAVAILABLE,
}


class GrpcServer:
    """The server of one port; it runs on the caller's event loop.

    Parameters
    ----------
    engine
        Where inference goes.
    drain_seconds
        Time between ``drain`` and ``stop``. No connection lives longer than half of it: gRPC
        cancels the calls that arrive while it stops, but serves those of a connection that ends by
        its age. In the other half, clients may still connect that do not know of the drain.
    """

    def __init__(self, engine: Engine, drain_seconds: float = 0.0) -> None:
        limits = engine.limits
        age_seconds = limits.max_age_seconds
        if drain_seconds > 0.0:
            age_seconds = min(age_seconds, max(_MIN_AGE_SECONDS, drain_seconds / 2))
        self._health = _Health()
        self._server = grpc.aio.server(
            ThreadPoolExecutor(1),
            options=[
                ("grpc.max_receive_message_length", limits.body_bytes),
                ("grpc.max_metadata_size", 16 << 10),
                ("grpc.max_concurrent_streams", limits.calls),
                ("grpc.max_connection_age_ms", int(age_seconds * 1000)),
                # Also of a call whose message never arrives.
                ("grpc.max_connection_age_grace_ms", int(limits.arrival_seconds * 1000)),
                ("grpc.so_reuseport", 0),  # a second server on this port is an error
                # Clients and gateways ping to find silent connections. The defaults of gRPC close
                # the connection of one that pings more than twice in five minutes.
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.keepalive_permit_without_calls", 1),
                # A client that vanishes without a reset does not keep its connection.
                ("grpc.keepalive_time_ms", PING_INTERVAL_MS),
                ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
            ],
        )
        own = (
            (proto.SERVICE, _others(engine), lambda _content: None),
            (proto.FEEDBACK, grpc_feedback.methods(engine), grpc_feedback.check_size),
        )
        self._server.add_generic_rpc_handlers(
            [_Inference(engine), *(_service(*service) for service in own)]
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for description in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
            proto.POOL.AddSerializedFile(description.serialized_pb)
        services = (proto.SERVICE, proto.FEEDBACK, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(services, self._server, pool=proto.POOL)

    async def start(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises
        ------
        DwcpError
            If it is not available.
        """
        try:
            bound: int = self._server.add_insecure_port(
                f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            )
        except RuntimeError as error:
            raise DwcpError(
                f"Port {port} of {host} is not available: is another server running? "
                "--grpc_port takes another."
            ) from error
        for service in (proto.SERVICE, proto.FEEDBACK):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        return bound

    async def drain(self) -> None:
        """Tell clients that ask for health that this server is about to stop."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace_seconds: float) -> None:
        """Accept no new call, and wait for those in flight."""
        self._health.end_watches()
        await self._server.stop(grace_seconds)


def message_bytes(engine: Engine) -> int:
    """Return the maximum size of a message: that of ``rows`` rows of the largest model.

    Ten bytes are the longest form of a number, and the names need some.
    """
    cells = max((math.prod(model.shape) for model in engine.models.values()), default=1)
    return min(engine.limits.body_bytes, engine.limits.rows * cells * 10 + (64 << 10))


class _Health(health.aio.HealthServicer):  # type: ignore[misc]
    """gRPC's health service, with a bound on those who watch, and an end for them."""

    def __init__(self) -> None:
        super().__init__()
        self._watches = 0
        self._ending = asyncio.Event()

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802 - the protocol's name
        """Send the status of a service whenever it changes."""
        if self._watches >= _MAX_WATCHES:
            text = f"{_MAX_WATCHES} clients watch already: ask with Check."
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._watches += 1
        parts = [
            asyncio.ensure_future(super().Watch(request, context)),
            asyncio.ensure_future(self._ending.wait()),
        ]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._watches -= 1
            for part in parts:
                part.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The server is shutting down.")

    def end_watches(self) -> None:
        """End the calls of those who watch; they would keep the server until its grace is over."""
        self._ending.set()


class _Call:
    """One inference call: it is counted once, however it ends."""

    def __init__(self, engine: Engine, mirrored: bool) -> None:
        self.model: ServedModel | None = None
        self.started = engine.waiting_since()
        self._engine = engine
        self._mirrored = mirrored
        self._counted = False
        self._size = 0

    def take(self, size: int) -> None:
        """Count the bytes of a large message as in flight; see ``Engine.take``."""
        self._size = size
        self._engine.take(size)

    def count(self, code: int) -> None:
        """Count the call by its code."""
        if not self._counted:
            self._counted = True
            seconds = time.perf_counter() - self.started
            self._engine.observers.metrics.count(self.model, code, seconds, self._mirrored)

    def ended(self, _task: object) -> None:
        """Count a call whose client left, perhaps before the server has begun with it."""
        self.count(CLIENT_CLOSED_REQUEST)
        self._engine.release(self._size)


class _Inference(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The method ``ModelInfer``, on bytes: a large message is read in the engine's thread."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._most_bytes = message_bytes(engine)
        self._calls = 0

    def service(self, details: Any) -> Any:
        """Return the handler of a call, which is counted from now on."""
        if details.method != _INFER:
            return None
        call = _Call(self._engine, any(key == MIRRORED for key, _ in details.invocation_metadata))
        task: Any = asyncio.current_task()
        task.add_done_callback(call.ended)
        return grpc.unary_unary_rpc_method_handler(partial(self._infer, call))

    async def _infer(self, call: _Call, content: bytes, context: Any) -> bytes:
        """Handle an inference request; a rejection is a status with one sentence."""
        metadata = {key: value for key, value in context.invocation_metadata() if key in _READ}
        request_id = _text(metadata.get(REQUEST_ID))
        rejected: RequestRejected | None = None
        body = b""
        self._calls += 1
        try:
            message = self._message(content)
            request_id = request_id_of(request_id or message.id)
            result = await self._predict(call, content, message, request_id, metadata)
            if isinstance(result, RequestRejected):
                raise result
            body = result.body
            await _check_client(context, call.started)
        except RequestRejected as error:
            rejected = error.with_traceback(None)
        except Exception:
            _log.exception("request %s failed", request_id)
            rejected = ModelFailed("The server failed on this request; see its log.")
        finally:
            self._calls -= 1
        context.set_trailing_metadata(((REQUEST_ID, request_id_of(request_id)),))
        call.count(rejected.status if rejected is not None else 200)
        if rejected is not None:
            await _abort(context, rejected)
        return body

    def _message(self, content: bytes) -> Any:
        if len(content) > self._most_bytes:
            raise TooLarge(
                f"A message may have at most {self._most_bytes} bytes.", code=ErrorCode.TOO_LARGE
            )
        if len(content) > self._engine.limits.inline_bytes and not has_few_fields(content):
            raise BadInput(
                f"A request may have at most {MAX_FIELDS} fields.", code=ErrorCode.TOO_LARGE
            )
        return _parsed(content, _Request)

    async def _predict(
        self, call: _Call, content: bytes, message: Any, request_id: str, metadata: dict[str, Any]
    ) -> Encoded | RequestRejected:
        engine, limits = self._engine, self._engine.limits
        model = call.model = engine.model(message.model_name, message.model_version or None)
        if self._calls > limits.calls:
            raise ModelUnavailable(
                f"{limits.calls} calls are in flight: send this one again later."
            )
        if len(content) > limits.inline_bytes:
            call.take(len(content))
        done: asyncio.Future[Encoded | RequestRejected]
        done = asyncio.get_running_loop().create_future()

        def on_result(result: Encoded | RequestRejected) -> None:
            if not done.done():  # cancelled if the client has left
                done.set_result(result)

        link = link_of(_text(metadata.get(LINK)))
        observed_at = _text(metadata.get(OBSERVED_AT))
        codec = Grpc(message)
        engine.submit(
            PredictRequest(
                model,
                codec,
                content,
                request_id,
                link,
                observed_at,
                on_result,
                mirrored=MIRRORED in metadata,
            )
        )
        return await done


def _others(engine: Engine) -> dict[str, _Respond]:
    """Return the methods besides inference: each returns the fields of its response."""

    def model_ready(request: Any) -> dict[str, object]:
        engine.model(request.name, request.version or None)
        return {"ready": engine.ready}

    def metadata(request: Any) -> dict[str, object]:
        model = engine.model(request.name, request.version or None)
        if not engine.ready:
            raise ModelUnavailable("The server is not ready.")
        return model_metadata(model)

    def refuse(_request: Any) -> NoReturn:
        raise NotOverTheNetwork("Models are loaded when the server starts, not over the network.")

    return {
        "ServerLive": lambda _request: {"live": True},
        "ServerReady": lambda _request: {"ready": engine.ready},
        "ModelReady": model_ready,
        "ServerMetadata": lambda _request: server_metadata(),
        "ModelMetadata": metadata,
        "RepositoryModelLoad": refuse,
        "RepositoryModelUnload": refuse,
    }


def _service(name: str, methods: Mapping[str, _Respond], check: Callable[[bytes], None]) -> Any:
    """Return the handlers of a service; ``check`` raises for bytes that are not to be parsed."""
    classes = proto.methods(name)
    handlers = {each: _handler(respond, check, *classes[each]) for each, respond in methods.items()}
    return grpc.method_handlers_generic_handler(name, handlers)


def _handler(
    respond: _Respond, check: Callable[[bytes], None], request_class: Any, response_class: Any
) -> Any:
    """Return a method's handler; gRPC's own reports bytes that it can't parse as INTERNAL."""

    async def handle(content: bytes, context: Any) -> bytes:
        try:
            check(content)
            fields = respond(_parsed(content, request_class))
        except RequestRejected as rejected:
            await _abort(context, rejected)
        body: bytes = response_class(**fields).SerializeToString()
        return body

    return grpc.unary_unary_rpc_method_handler(handle)


def _parsed(content: bytes, request_class: Any) -> Any:
    try:
        return request_class.FromString(content)
    except DecodeError:
        name = request_class.DESCRIPTOR.name
        raise BadInput(f"The bytes are not a valid {name}.", code=ErrorCode.MALFORMED) from None


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
