"""Reports of what came true, over HTTP: ``POST /v1/models/<model>:feedback``."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.http_body import Bodies, Taken
from dwcp_ml.serving.http_routes import HttpResponse, MethodNotAllowed
from dwcp_ml.serving.outcomes import MAX_BYTES, not_counted, too_long

_PATH: Final = re.compile(r"/v1/models/([^/:]+):feedback")


def model_of(path: str) -> str | None:
    """Return the model of a path of feedback; ``None`` if it is another path."""
    match = _PATH.fullmatch(path)
    return None if match is None else match[1]


async def receive(
    engine: Engine, bodies: Bodies, protocol: Any, method: str, headers: dict[str, str], name: str
) -> HttpResponse:
    """Read a report, count it, and return the response.

    Raises
    ------
    RequestRejected
        If it can't be counted; nothing of it is then.
    Disconnected
        If the client leaves before its body is complete.
    """
    if method != "POST":
        raise MethodNotAllowed("POST", f"Outcomes are reported with POST, not {method[:12]}.")
    model = engine.model(name)
    outcomes = engine.observers.outcomes
    if outcomes is None:
        raise not_counted()
    length = headers.get("content-length", "")
    declared = int(length) if length.isdecimal() and len(length) < 20 else None
    if declared is not None and declared > MAX_BYTES:
        raise too_long()
    taken = Taken(engine)
    try:
        body, _ = await bodies.read(protocol, declared, taken)
    finally:
        taken.release()
    return HttpResponse(200, orjson.dumps(outcomes.add(model, body)._asdict()))
