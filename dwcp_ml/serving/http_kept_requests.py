"""What a rollout compares, over HTTP on a port of its own.

``GET /v1/requests?model=M&after=N&limit=L``    kept requests and their predictions
``GET /v1/champion?model=M``                    how the bundle differs from the one that was live
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.headers import CHAMPION_PATH, REQUESTS_PATH
from dwcp_ml.serving.http_routes import HttpResponse, MethodNotAllowed
from dwcp_ml.serving.kept_requests import KeptRequests
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, ModelNotFound, RequestRejected

MAX_LIMIT: Final = 512
"""Requests in one response."""

LIMITS: Final = Limits(connections=32, streams=4, idle_seconds=30.0)


class KeptRequestsHandler:
    """The application of the port on which kept requests are read."""

    def __init__(self, kept: KeptRequests, engine: Engine) -> None:
        self._kept, self._engine = kept, engine

    async def __call__(self, scope: Any, protocol: Any, _arrived: float) -> None:
        """Respond to one request."""
        try:
            response = self._respond(scope.method, scope.path, scope.query_string)
        except RequestRejected as rejected:
            response = HttpResponse.of_rejection(rejected)
        head = [("content-type", response.content_type), *response.headers]
        protocol.response_bytes(response.status, head, response.body)

    def _respond(self, method: str, path: str, query: str) -> HttpResponse:
        if path not in (REQUESTS_PATH, CHAMPION_PATH):
            raise ModelNotFound(
                f"Here is nothing but {REQUESTS_PATH} and {CHAMPION_PATH}.",
                code=ErrorCode.UNKNOWN_NAME,
            )
        if method != "GET":
            raise MethodNotAllowed("GET", f"{path} is read with GET.")
        words = _words(query)
        if path == CHAMPION_PATH:
            champion = self._engine.model(words.get("model", "")).manifest.provenance.champion
            found = None if champion is None else champion.model_dump(mode="json")
            return HttpResponse(200, orjson.dumps({"champion": found}))
        found = self._kept.since(
            words.get("model", ""),
            _number(words.get("after", "0"), "after"),
            min(_number(words.get("limit", str(MAX_LIMIT)), "limit"), MAX_LIMIT),
        )
        return HttpResponse(200, orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY))


def _words(query: str) -> dict[str, str]:
    try:
        given = parse_qs(query[:1024], max_num_fields=8)
    except ValueError:
        raise BadInput("Write model, after and limit, each once.", subject="query") from None
    return {name: values[-1] for name, values in given.items()}


def _number(text: str, name: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 20):
        raise BadInput(f"'{name}' must be a whole number.", subject=name)
    return int(text)
