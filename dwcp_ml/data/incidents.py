"""Labelled incidents, and the rows that they label positive."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from dwcp_ml.contract.arrays import Array, Floats, Ints
from dwcp_ml.contract.data_window import DataWindow
from dwcp_ml.contract.errors import DataRefused, ErrorCode
from dwcp_ml.contract.keys import key_of

DEFAULT_WINDOW_MINUTES = 15.0
"""Minutes before and after the timestamp of an incident that has no interval."""


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _as_text(name: Any) -> Any:
    integral = isinstance(name, float) and name.is_integer()
    number = isinstance(name, int | float) and not isinstance(name, bool)
    text = str(int(name) if integral else name) if number else name
    return key_of(text) if isinstance(text, str) else text


Moment = Annotated[datetime, AfterValidator(_in_utc)]
"""A time; without a time zone it is UTC."""


class Incident(BaseModel):
    """One labelled incident of one node.

    Further fields of the file are ignored. ``start`` and ``end``, both or neither, are the
    interval in which symptoms show.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    timestamp: Moment
    node_id: Annotated[str, BeforeValidator(_as_text), Field(min_length=1)]
    incident_type: str = Field(min_length=1)
    severity: str = "unknown"
    resolved: bool | None = None
    start: Moment | None = None
    end: Moment | None = None

    @model_validator(mode="after")
    def _interval(self) -> Self:
        if (self.start is None) != (self.end is None):
            raise ValueError("'start' and 'end' go together: give both or neither")
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError("'end' lies before 'start'")
        return self

    @property
    def has_interval(self) -> bool:
        """True when the file gives the interval in which symptoms show."""
        return self.start is not None

    def interval(self, window_minutes: float = DEFAULT_WINDOW_MINUTES) -> tuple[float, float]:
        """Return the first and last time (epoch seconds) at which a row is positive."""
        if self.start is not None and self.end is not None:
            return self.start.timestamp(), self.end.timestamp()
        moment = self.timestamp.timestamp()
        return moment - 60.0 * window_minutes, moment + 60.0 * window_minutes


_LIST = TypeAdapter(list[Incident])


def read_incidents(path: Path) -> list[Incident]:
    """Read a JSON list of incidents.

    Raises ``DataRefused`` if the file can't be read, is no JSON list, or an incident in it breaks
    the contract; the message names the incident (counted from 1) and the field.
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DataRefused(
            f"Can't read the incidents {path}: {error.strerror}.",
            code=ErrorCode.CANT_READ,
            subject=path,
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataRefused(
            f"The incidents {path} are not JSON: {error}.", code=ErrorCode.MALFORMED
        ) from error
    if not isinstance(data, list):
        raise DataRefused(
            f"The incidents {path} must be a JSON list, not {_json_kind(data)}.",
            code=ErrorCode.WRONG_TYPE,
        )
    try:
        return _LIST.validate_python(data)
    except ValidationError as error:
        raise DataRefused(
            f"The incidents {path} break the contract: {_first(error)}.",
            code=ErrorCode.CONTRACT,
            subject=".".join(map(str, error.errors()[0]["loc"])),
        ) from error


def overlapping(incidents: Sequence[Incident], window: DataWindow) -> list[Incident]:
    """Return the incidents that can label a row in a window; see ``Incident.interval``."""
    intervals = ([1000 * time for time in incident.interval()] for incident in incidents)
    pairs = zip(incidents, intervals, strict=True)
    return [incident for incident, (start, end) in pairs if window.overlaps(start, end)]


def _json_kind(data: Any) -> str:
    kinds = {dict: "an object", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(data), "a number")


def _first(error: ValidationError) -> str:
    detail = error.errors()[0]
    place, *fields = detail["loc"]
    where = f"incident {int(place) + 1}" + "".join(f", '{field}'" for field in fields)
    return f"{where}: {detail['msg'].removeprefix('Value error, ')}"


def incidents_json(incidents: Sequence[Incident]) -> str:
    """Return the incidents as normalised JSON: UTC times, node names as text, no empty field."""
    data = _LIST.dump_python(list(incidents), mode="json", exclude_none=True)
    return json.dumps(data, indent=2) + "\n"


def incident_of_rows(
    timestamp: Floats,
    node: Array,
    incidents: Sequence[Incident],
    window_minutes: float = DEFAULT_WINDOW_MINUTES,
) -> Ints:
    """Return the index of the incident that labels each row positive, int64 (n,), -1 for none.

    A row (``timestamp`` in epoch seconds, name of its ``node``) is positive when its node is inside
    an incident's interval, both ends included. Where intervals overlap the row belongs to the one
    that began last.
    """
    event = np.full(len(timestamp), -1, np.int64)
    nodes, code = np.unique(node.astype(str), return_inverse=True)
    order = np.lexsort((timestamp, code))
    bounds = np.searchsorted(code[order], np.arange(len(nodes) + 1))
    place = {str(name): index for index, name in enumerate(nodes)}
    intervals = [incident.interval(window_minutes) for incident in incidents]
    for index in sorted(range(len(incidents)), key=lambda item: intervals[item]):
        position = place.get(incidents[index].node_id)
        if position is None:
            continue
        rows = order[bounds[position] : bounds[position + 1]]
        start, end = intervals[index]
        times = timestamp[rows]
        first = np.searchsorted(times, start, "left")
        event[rows[first : np.searchsorted(times, end, "right")]] = index
    return event


def label_source(incidents: Sequence[Incident]) -> str:
    """Return ``intervals`` when every incident has one, else ``window``."""
    return "intervals" if all(incident.has_interval for incident in incidents) else "window"
