"""One inference request over HTTP, from its bytes to the bytes of its answer.

Both lanes of the server use it: the fast lane, which reads the common form of a request straight
from the socket, and the ASGI application, which takes every other. Whatever way a request takes,
it is judged, answered and counted alike.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dwcp_ml.serving import v1, v2
from dwcp_ml.serving.engine import Engine, Question
from dwcp_ml.serving.refusals import Failed, Refused
from dwcp_ml.serving.served_model import Outputs, ServedModel

_log = logging.getLogger(__name__)

INFERENCE_PATH: Final = re.compile(
    r"/v(?:1/models/(?P<v1>[^/:]+)(?:/versions/(?P<v1_version>[^/:]+))?:predict"
    r"|2/models/(?P<v2>[^/]+)(?:/versions/(?P<v2_version>[^/]+))?/infer)"
)
"""Where an inference is asked for, in either protocol."""

JSON_LENGTH: Final = "inference-header-content-length"
"""The header that says where the JSON of a body ends and the bytes of its tensors begin."""

_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")


@dataclass(frozen=True, slots=True)
class Target:
    """Which model is asked, and in which protocol."""

    protocol: int
    name: str
    version: str | None

    @classmethod
    def of(cls, path: str) -> Target | None:
        """Return the target of a path; ``None`` if no inference is asked for there."""
        match = INFERENCE_PATH.fullmatch(path)
        if match is None:
            return None
        if match["v1"] is not None:
            return cls(1, match["v1"], match["v1_version"])
        return cls(2, match["v2"], match["v2_version"])


@dataclass(slots=True)
class Ask:
    """A request whose body is complete.

    Parameters
    ----------
    json_length
        ``Inference-Header-Content-Length``, if the body has bytes behind its JSON.
    mirrored
        The header ``X-DWCP-Mirrored``: a router's copy of a request that another server answers.
    request_id, link, observed_at
        The headers ``X-Request-Id`` (already made if it was absent), ``X-DWCP-Link`` and
        ``X-DWCP-Observed-At``.
    """

    target: Target
    body: bytes | bytearray
    request_id: str
    link: str | None = None
    observed_at: str | None = None
    mirrored: bool = False
    json_length: int | None = None


@dataclass(slots=True)
class Answer:
    """What goes back, in either lane; ``headers`` stand beside those that every answer has."""

    status: int
    body: bytes
    kind: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def refusal(cls, refused: Refused) -> Answer:
        """Return the answer that says why there is none."""
        headers = (("retry-after", "1"),) if refused.status == 503 else ()
        return cls(refused.status, refused.body(), headers=headers)

    @classmethod
    def tensors(cls, body: bytes, json_length: int | None) -> Answer:
        """Return a V2 answer; with ``json_length``, bytes of tensors follow its JSON."""
        if json_length is None:
            return cls(200, body)
        headers = ((JSON_LENGTH, str(json_length)),)
        return cls(200, body, "application/octet-stream", headers)


Reply = Callable[[Answer], None]


def answer(engine: Engine, ask: Ask, reply: Reply) -> None:
    """Answer a request: ``reply`` is called once, on the event loop, now or soon.

    It never raises: what is wrong with the request is in the answer.
    """
    started = time.perf_counter()
    model: ServedModel | None = None
    try:
        model = engine.model(ask.target.name, ask.target.version)
        if ask.target.protocol == 1:
            wanted = None
            rows = v1.decode(ask.body, model, engine.limits)
        else:
            rows, wanted = v2.decode(ask.body, ask.json_length, model, engine.limits)
    except Refused as refused:
        _refuse(engine, ask, model, refused, started, reply)
        return
    except Exception:  # nobody thought of this: the client still gets its answer
        _log.exception("request %s failed", ask.request_id)
        failed = Failed("the server failed on this request; see its log.")
        _refuse(engine, ask, model, failed, started, reply)
        return
    asked = model

    def done(outputs: Outputs | Refused) -> None:
        if isinstance(outputs, Refused):
            _refuse(engine, ask, asked, outputs, started, reply)
            return
        try:
            if wanted is None:
                told = Answer(200, v1.encode(outputs))
            else:
                told = Answer.tensors(*v2.encode(outputs, asked, wanted, ask.request_id))
        except Exception:
            _log.exception("an answer of %s could not be written", asked.name)
            failed = Failed(f"{asked.name} gave an answer that can't be written; see its log.")
            _refuse(engine, ask, asked, failed, started, reply)
            return
        reply(told)
        _count(engine, ask, asked, 200, started)

    protocol = "v1" if wanted is None else "v2"
    engine.ask(Question(model, rows, ask.request_id, ask.link, ask.observed_at, protocol, done))


def _refuse(
    engine: Engine,
    ask: Ask,
    model: ServedModel | None,
    refused: Refused,
    started: float,
    reply: Reply,
) -> None:
    reply(Answer.refusal(refused))
    _count(engine, ask, model, refused.status, started)


def _count(engine: Engine, ask: Ask, model: ServedModel | None, code: int, started: float) -> None:
    metrics = engine.observers.metrics
    if ask.mirrored:
        metrics.count_mirrored(model, code)
    else:
        metrics.count(model, code, time.perf_counter() - started)


def request_id_of(text: str | None) -> str:
    """Return the client's request id if it is a printable word, or a new one."""
    if text and _REQUEST_ID.fullmatch(text):
        return text
    return uuid.uuid4().hex
