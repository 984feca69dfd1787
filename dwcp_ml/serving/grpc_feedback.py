"""Reports of what came true, over gRPC: ``dwcp.ml.v1.Feedback/ReportOutcomes``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from dwcp_ml.serving.engine import Engine
from dwcp_ml.serving.outcomes import MAX_BYTES, not_counted, too_long


def methods(engine: Engine) -> dict[str, Callable[[Any], dict[str, object]]]:
    """Return the method of the service: it returns the fields of its response."""
    return {"ReportOutcomes": partial(count, engine)}


def check_size(content: bytes) -> None:
    """Raise ``TooLarge`` for a report that is too long to be parsed."""
    if len(content) > MAX_BYTES:
        raise too_long()


def count(engine: Engine, request: Any) -> dict[str, object]:
    """Count a report, and return the fields of the response.

    Raises
    ------
    RequestRejected
        If it can't be counted; nothing of it is then.
    """
    model = engine.model(request.model_name)
    outcomes = engine.observers.outcomes
    if outcomes is None:
        raise not_counted()
    items = [{field.name: value for field, value in each.ListFields()} for each in request.outcomes]
    return outcomes.count(model, items)._asdict()
