"""The paths of the server over HTTP: what each is, and the responses to those that are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import orjson
from prometheus_client import exposition

from dwcp_ml import __version__
from dwcp_ml.contract.bundle import TensorRecord
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.openapi import description
from dwcp_ml.serving.rejections import (
    ModelNotFound,
    ModelUnavailable,
    NotOverTheNetwork,
    RequestRejected,
)
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.v2 import DATATYPES

INFERENCE_PATH: Final = re.compile(
    r"/v(?:1/models/(?P<v1>[^/:]+)(?:/versions/(?P<v1_version>[^/:]+))?:predict"
    r"|2/models/(?P<v2>[^/]+)(?:/versions/(?P<v2_version>[^/]+))?/infer)"
)
"""The paths of inference in V1 and V2."""

_MODEL_PATH: Final = re.compile(
    r"/v1/models/(?P<v1>[^/:]+)"
    r"|/v2/models/(?P<v2>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<ready>/ready)?"
)

SERVER_NAME: Final = "dwcp-ml"
"""The server's name in V2's metadata, and its header ``Server``."""


@dataclass(frozen=True, slots=True)
class Target:
    """The model of an inference request, and the protocol: 1 or 2."""

    protocol: int
    name: str
    version: str | None


@dataclass(slots=True)
class HttpResponse:
    """A response; ``headers`` are added to those that every response has."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_rejection(cls, rejected: RequestRejected) -> HttpResponse:
        """Return the response that carries a rejection."""
        headers: tuple[tuple[str, str], ...] = ()
        if rejected.status == 503:
            headers = (("retry-after", "1"),)
        elif isinstance(rejected, MethodNotAllowed):
            headers = (("allow", rejected.allow),)
        return cls(rejected.status, rejected.body(), headers=headers)


class MethodNotAllowed(RequestRejected):
    """The path exists, but not with this method; ``allow`` lists those that it has."""

    status = 405

    def __init__(self, allow: str, message: str) -> None:
        super().__init__(message)
        self.allow = allow


def target_of(path: str) -> Target | None:
    """Return the target of a path; ``None`` if it is not a path of inference."""
    match = INFERENCE_PATH.fullmatch(path)
    if match is None:
        return None
    if match["v1"] is not None:
        return Target(1, match["v1"], match["v1_version"])
    return Target(2, match["v2"], match["v2_version"])


class Routes:
    """The paths that are read: health, readiness, metadata, metrics, the OpenAPI description.

    Parameters
    ----------
    engine
        Whose models they describe.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        names = list(engine.models)
        openapi = orjson.dumps(description(engine.models.values(), engine.limits))
        self._fixed: dict[str, Callable[[], bytes]] = {
            "/": lambda: b'{"status":"alive"}',
            "/openapi.json": lambda: openapi,
            "/v1/models": lambda: orjson.dumps({"models": names}),
            "/v2": lambda: orjson.dumps(server_metadata()),
            "/v2/models": lambda: orjson.dumps({"models": names}),
            "/v2/health/live": lambda: b'{"live":true}',
            "/v2/health/ready": self._ready,
        }

    def respond(self, method: str, path: str, accept: str) -> HttpResponse:
        """Return the response to a request that is not inference.

        Raises
        ------
        RequestRejected
            If there is no such path or method, or the model is not ready.
        """
        if path.startswith("/v2/repository"):
            raise NotOverTheNetwork(
                "Models are loaded when the server starts, not over the network."
            )
        read = self._fixed.get(path) or (None if path == "/metrics" else self._of_model(path))
        if method not in ("GET", "HEAD"):
            raise MethodNotAllowed("GET, HEAD", f"{path[:60]} is read with GET.")
        if read is not None:
            return HttpResponse(200, read())
        encoder, content_type = exposition.choose_encoder(accept)
        return HttpResponse(200, encoder(self._engine.observers.metrics.registry), content_type)

    def _ready(self) -> bytes:
        if not self._engine.ready:
            raise ModelUnavailable("The server is not ready.")
        return b'{"ready":true}'

    def _of_model(self, path: str) -> Callable[[], bytes]:
        match = _MODEL_PATH.fullmatch(path)
        if match is None:
            raise ModelNotFound("This path does not exist; /openapi.json lists those that do.")
        model = self._engine.model(match["v1"] or match["v2"], match["version"])
        self._ready()
        if match["v1"] or match["ready"]:
            return lambda: orjson.dumps({"name": model.name, "ready": True})
        return lambda: orjson.dumps(model_metadata(model))


def server_metadata() -> dict[str, object]:
    """Return V2's description of the server; it has no extension of the protocol."""
    return {"name": SERVER_NAME, "version": __version__, "extensions": ["binary_tensor_data"]}


def _tensors(tensors: tuple[TensorRecord, ...]) -> list[dict[str, object]]:
    """Return name, datatype and shape of tensors as V2's metadata has them; -1: any number."""
    return [
        {"name": each.name, "datatype": DATATYPES[each.dtype], "shape": [-1, *each.shape]}
        for each in tensors
    ]


def model_metadata(model: ServedModel) -> dict[str, object]:
    """Return V2's description of a model."""
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": "onnxruntime_onnx",
        "inputs": _tensors((model.input,)),
        "outputs": _tensors(model.outputs),
    }
