"""The lines of a prediction log, and the names of its files.

A log is a directory of segments, each written by one process. The first line of a segment
names the format, every other line is one instance of one request::

    {"format":"dwcp-prediction-log","schema_version":1}
    {"model":"bandwidth_predictor","version":"20260101-000000",...}

``predictions-<time>-<writer>-<number>.jsonl`` is complete; while it is written, and when its
writer was killed, it ends in ``.part`` and its last line may be cut off.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

SCHEMA_VERSION: Final = 1
HEADER: Final = b'{"format":"dwcp-prediction-log","schema_version":%d}\n' % SCHEMA_VERSION

SUFFIX: Final = ".jsonl"
PARTIAL_SUFFIX: Final = ".jsonl.part"
SEGMENT_NAME: Final = re.compile(r"predictions-\d{8}T\d{9}Z-[0-9a-f]{8}-\d{6}\.jsonl(\.part)?")
"""Names sort in the order in which the segments were started."""

MAX_NAME_CHARACTERS: Final = 256
"""A longer request id or link is cut: the client chooses both."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """The prediction of one model version for one instance.

    Parameters
    ----------
    model, version, digest
        Full name and version of the model, and the SHA-256 of its bundle's manifest.
    request_id
        Of the request; the same for a retry, and for the mirrored copy to the other version.
    row
        Position of the instance in its request, from 0.
    link
        The link of the features: ``<node_id>/<peer_id>``, or ``<node_id>``; None if not given.
    observed_at
        Time of the last observation in the features, epoch seconds; None if not given.
    received_at
        When the server responded, epoch seconds by its own clock.
    protocol
        Protocol of the request, such as ``v1``, ``v2`` or ``grpc``; empty if not given.
    inputs : float32 of the shape of one instance
        Raw features in contract units.
    outputs
        Each output by name: a number, a boolean, or a list of numbers; NaN where the output was
        not finite.
    """

    model: str
    version: str
    digest: str
    request_id: str
    row: int
    link: str | None
    observed_at: float | None
    received_at: float
    protocol: str
    inputs: NDArray[np.float32]
    outputs: dict[str, Any]

    @property
    def moment(self) -> float:
        """When the features were observed, epoch seconds: ``observed_at``, else ``received_at``."""
        return self.received_at if self.observed_at is None else self.observed_at


def is_sampled(request_id: str, share: float) -> bool:
    """Return whether a request belongs to the sample; the same in every process and version.

    The first 64 bits of the BLAKE2b hash of the id, as a fraction, lie below ``share``.
    """
    if share >= 1.0:
        return True
    text = request_id.encode("utf-8", "surrogatepass")
    fraction = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2.0**64
    return fraction < share


def segment_name(started: float, writer: str, number: int) -> str:
    """Return the final name of a segment.

    Parameters
    ----------
    started
        Epoch seconds.
    writer
        Eight hexadecimal digits, unique to the process.
    """
    start = datetime.fromtimestamp(started, UTC)
    stamp = f"{start:%Y%m%dT%H%M%S}{start.microsecond // 1000:03d}Z"
    return f"predictions-{stamp}-{writer}-{number:06d}{SUFFIX}"


def encode(
    common: Mapping[str, Any], inputs: NDArray[Any], outputs: Mapping[str, NDArray[Any]]
) -> list[bytes]:
    """Return the lines of one request, one for each instance.

    Parameters
    ----------
    inputs : (rows, ...)
    outputs
        Each of shape (rows, ...).
    """
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    # ONNX Runtime's int64 is C's long long, a dtype of its own that the JSON writer does not know.
    values_of: dict[str, Any] = {
        name: values.tolist() if values.dtype.kind == "i" else np.ascontiguousarray(values)
        for name, values in outputs.items()
    }
    features = np.ascontiguousarray(inputs, np.float32)
    return [
        orjson.dumps(
            {
                **common,
                "row": row,
                "inputs": features[row],
                "outputs": {name: values[row] for name, values in values_of.items()},
            },
            option=options,
        )
        for row in range(len(features))
    ]


def decode(line: bytes) -> LogRecord:
    """Return the record of a line.

    Raises
    ------
    ValueError
        If it is not a record.
    """
    try:
        fields = orjson.loads(line)
        inputs = np.asarray(fields.pop("inputs"), np.float32)
        outputs = {str(name): _number(value) for name, value in fields.pop("outputs").items()}
        record = LogRecord(**fields, inputs=inputs, outputs=outputs)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"not a prediction: {error}") from error
    texts = (record.model, record.version, record.digest, record.request_id, record.protocol)
    times = (record.received_at, record.observed_at or 0.0)
    if not all(isinstance(text, str) for text in (*texts, record.link or "")):
        raise ValueError("a name is not text")
    if not all(isinstance(time, int | float) for time in times):
        raise ValueError("a time is not a number")
    if not isinstance(record.row, int) or not inputs.ndim:
        raise ValueError("the row is not a whole number, or the inputs are not a list")
    return record


def _number(value: Any) -> Any:
    """Return an output with NaN for ``null``: JSON has no NaN, which a bad model may return."""
    if isinstance(value, list):
        return [_number(each) for each in value]
    return float("nan") if value is None else value
