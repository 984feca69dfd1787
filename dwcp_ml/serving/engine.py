"""The request queue between the protocols and the models.

Requests that arrive in the same iteration of the event loop, on any connection and protocol, share
what a batch can share: one array, one check, one run of the model, one pass of the observers. With
one connection this costs nothing; with many it gives most of the throughput. A request never waits
for another request to arrive.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import accumulate
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.memory import give_back
from dwcp_ml.serving.observers import Observers
from dwcp_ml.serving.rejections import (
    BadInput,
    ModelFailed,
    ModelNotFound,
    ModelUnavailable,
    RequestRejected,
    TooLarge,
    shorten,
)
from dwcp_ml.serving.request import Body, Encoded, PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows, rows_of_all

_GZIP: Final = 16 + zlib.MAX_WBITS

_BUSY_SECONDS: Final = 0.02
_JUST_SECONDS: Final = 0.005

_MUCH_IN_FLIGHT: Final = 16 << 20
"""Bytes after which memory is given back to the system."""

_SMALL_TEXT: Final = 1 << 20
"""A body may be unpacked to this size whatever its ratio."""

_log = logging.getLogger(__name__)


class _Batch(NamedTuple):
    """Requests that have run together; the rows of ``requests[i]`` end at ``ends[i]``.

    ``valid`` tells which rows have finite predictions; ``None`` if all have.
    """

    model: ServedModel
    requests: list[PredictRequest]
    ends: list[int]
    rows: Rows
    outputs: Outputs
    valid: NDArray[np.bool_] | None

    def parts(self) -> Iterator[tuple[PredictRequest, int, int, bool]]:
        """Yield each request, its first row, the row behind its last, whether all are valid."""
        start = 0
        for request, stop in zip(self.requests, self.ends, strict=True):
            yield request, start, stop, self.valid is None or bool(self.valid[start:stop].all())
            start = stop

    def valid_firsts(self) -> list[int]:
        """Return the place of each request's first row among the valid rows, where it is one.

        Mirrored copies are left out: they are not of the arm's own traffic.
        """
        starts = [0, *self.ends[:-1]]
        if any(request.mirrored for request in self.requests):
            pairs = zip(starts, self.requests, strict=True)
            starts = [start for start, request in pairs if not request.mirrored]
        if self.valid is None:
            return starts
        places = np.cumsum(self.valid) - 1
        return [int(places[start]) for start in starts if self.valid[start]]


class Engine:
    """The models, and the queue of the requests of this iteration of the event loop.

    Parameters
    ----------
    models
        By full name, ready.
    limits
        See ``Limits``.
    observers
        Metrics, sketches and the prediction log; each receives every prediction.
    """

    def __init__(
        self, models: Mapping[str, ServedModel], limits: Limits, observers: Observers
    ) -> None:
        self.models = dict(models)
        self.limits = limits
        self.observers = observers
        self.draining = False
        self.in_flight = 0
        self.busy_seconds = 0.0  # of the event loop with models, in all
        self._last_flush = (0.0, 0.0)
        self._bytes_in_flight = self._most_in_flight = 0
        self._queue: list[PredictRequest] = []
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="large-requests")
        self._large_in_flight = 0  # requests that the thread has not finished

    @property
    def ready(self) -> bool:
        """Whether every model is warm and the server is not shutting down."""
        return not self.draining and all(model.ready for model in self.models.values())

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model by its full name.

        Raises
        ------
        ModelNotFound
            If the server does not have it, or has another version.
        ModelUnavailable
            If it is not warm yet.
        """
        model = self.models.get(name)
        if model is None:
            available = ", ".join(self.models)
            raise ModelNotFound(
                f"There is no model '{shorten(name)}' on this server, only {available}.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=shorten(name),
            )
        if version is not None and version != model.version:
            raise ModelNotFound(
                f"{name} is served in version {model.version}, not '{shorten(version)}'.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=shorten(version),
            )
        if not model.ready:
            raise ModelUnavailable(f"{name} is not ready yet.")
        return model

    def take(self, size: int) -> None:
        """Count bytes of a large body that has no response yet; ``release`` must follow.

        Small bodies are not counted: their number is limited, and large ones shall not stop them.

        Raises
        ------
        ModelUnavailable
            If the server holds too many; they are counted all the same.
        """
        self._bytes_in_flight += size
        self._most_in_flight = max(self._most_in_flight, self._bytes_in_flight)
        if self._bytes_in_flight > self.limits.bytes_in_flight:
            raise ModelUnavailable(
                f"Requests of {self.limits.bytes_in_flight} bytes are in flight already: send this "
                "one again later."
            )

    def release(self, size: int) -> None:
        """Count the bytes of a body as gone."""
        self._bytes_in_flight -= size
        if self._bytes_in_flight == 0 and self._most_in_flight >= _MUCH_IN_FLIGHT:
            self._most_in_flight = 0
            self._threads.submit(give_back)

    def submit(self, request: PredictRequest) -> bool:
        """Run a request in this iteration of the event loop, or a large one in the thread.

        A request that can't be decoded has its result when this returns.

        Returns
        -------
        Whether it runs in the thread.
        """
        self.in_flight += 1
        if request.packed or len(request.body) > self.limits.inline_bytes:
            return self._submit_to_thread(request)
        try:
            request.cells = request.codec.decode(request.body, request.model, self.limits)
        except RequestRejected as rejected:
            self._finish(request, rejected)
            return False
        except Exception as error:  # a bug of the server; the client still gets a response
            _log.exception("a request for %s could not be decoded", request.model.name)
            self._finish(request, _failure(request.model, error))
            return False
        if request.cells.rows > self.limits.inline_rows:
            return self._submit_to_thread(request)
        self._queue.append(request)
        if len(self._queue) == 1:
            asyncio.get_running_loop().call_soon(self._flush)
        return False

    def _flush(self) -> None:
        """Run everything that is queued now."""
        began = time.perf_counter()
        queue, self._queue = self._queue, []
        for group in [queue] if len(queue) == 1 else _groups(queue, self.limits.batch_rows):
            self._run(group)
        self._last_flush = began, time.perf_counter()
        self.busy_seconds += self._last_flush[1] - began

    def waiting_since(self) -> float:
        """Return since when what the event loop finds now may have waited, by ``perf_counter``.

        That is the start of the batch that has just kept the loop busy for long, or now.
        """
        now = time.perf_counter()
        began, ended = self._last_flush
        return began if now - ended < _JUST_SECONDS and ended - began > _BUSY_SECONDS else now

    def _run(self, group: list[PredictRequest]) -> None:
        model = group[0].model
        try:
            rows = rows_of_all([request.cells for request in group], model.shape)
        except BadInput as rejected:
            if len(group) == 1:
                self._finish(group[0], rejected)
                return
            group, rows = self._without_the_wrong(group)
            if not group:
                return
        try:
            batch = _predict(model, group, rows)
        except Exception as error:
            _log.exception("%s failed on %d requests", model.name, len(group))
            for request in group:
                self._finish(request, _failure(model, error))
            return
        self._respond(batch, _encode(batch))

    def _without_the_wrong(self, group: list[PredictRequest]) -> tuple[list[PredictRequest], Rows]:
        """Reject the requests of a group whose values are wrong; return the others, and theirs."""
        kept: list[PredictRequest] = []
        parts = []
        for request in group:
            try:
                parts.append(rows_of_all([request.cells], request.model.shape))
            except BadInput as rejected:
                self._finish(request, rejected)
            else:
                kept.append(request)
        return kept, np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _respond(self, batch: _Batch, results: list[Encoded | RequestRejected]) -> None:
        """Send and record the predictions of a batch."""
        for request, result in zip(batch.requests, results, strict=True):
            self._finish(request, result)
        try:
            self.observers.record(batch.model, *_only_valid(batch), batch.valid_firsts())
            if self.observers.log is not None:
                for request, start, stop, valid in batch.parts():
                    if valid:
                        part = {name: values[start:stop] for name, values in batch.outputs.items()}
                        self.observers.log_request(request, batch.rows[start:stop], part)
        except Exception:  # a failing observer must not stop the server
            _log.exception("predictions of %s could not be recorded", batch.model.name)

    def _submit_to_thread(self, request: PredictRequest) -> bool:
        if self._large_in_flight >= self.limits.waiting_large:
            busy = ModelUnavailable(
                f"{self._large_in_flight} large requests are waiting already: send this one again "
                "later, or in smaller parts."
            )
            self._finish(request, busy)
            return False
        self._large_in_flight += 1
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, _predict_large, request, self.limits)
        running.add_done_callback(partial(self._finish_from_thread, request))
        return True

    def _finish_from_thread(self, request: PredictRequest, running: asyncio.Future[_Large]) -> None:
        self._large_in_flight -= 1
        model = request.model
        if running.cancelled():
            self._finish(request, ModelUnavailable("The server is shutting down."))
            return
        error = running.exception()
        if error is None:
            self._respond(*running.result())
        elif isinstance(error, RequestRejected):
            self._finish(request, error)
        else:
            _log.error("%s failed on a large request", model.name, exc_info=error)
            self._finish(request, _failure(model, error))

    def _finish(self, request: PredictRequest, result: Encoded | RequestRejected) -> None:
        self.in_flight -= 1
        try:
            request.on_result(result)
        except Exception:  # one broken connection must not cost the others their responses
            _log.exception("a prediction of %s could not be sent", request.model.name)

    def close(self) -> None:
        """Stop the thread for large requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)


_Large = tuple[_Batch, list[Encoded | RequestRejected]]


def _predict_large(request: PredictRequest, limits: Limits) -> _Large:
    """Do everything of one request, in the thread."""
    model = request.model
    body = unpacked(request.body, limits) if request.packed else request.body
    cells = request.codec.decode(body, model, limits)
    request.cells = cells
    batch = _predict(model, [request], rows_of_all([cells], model.shape))
    return batch, _encode(batch)


def _predict(model: ServedModel, group: list[PredictRequest], rows: Rows) -> _Batch:
    outputs = model.run(rows)
    ends = list(accumulate(request.cells.rows for request in group))
    return _Batch(model, group, ends, rows, outputs, _valid_rows(outputs))


def _encode(batch: _Batch) -> list[Encoded | RequestRejected]:
    """Return the response to each request of a batch."""
    columns: dict[str, Any] = {}
    results: list[Encoded | RequestRejected] = []
    for request, start, stop, valid in batch.parts():
        codec, name = request.codec, batch.model.name
        if not valid:
            # JSON would carry null, which a client would read as zero.
            _log.error("%s returned a prediction that is not finite", name)
            results.append(ModelFailed(f"{name} has no finite prediction for this request."))
            continue
        try:
            if codec.protocol not in columns:
                columns[codec.protocol] = codec.columns(batch.outputs)
            results.append(codec.encode(columns[codec.protocol], start, stop, request))
        except Exception:
            _log.exception("a prediction of %s could not be encoded", name)
            text = f"{name} returned a prediction that can't be encoded; see its log."
            results.append(ModelFailed(text))
    return results


def _valid_rows(outputs: Outputs) -> NDArray[np.bool_] | None:
    """Return which rows have finite predictions only; ``None`` if all have."""
    floats = [values for values in outputs.values() if values.dtype.kind == "f"]
    if all(np.isfinite(values).all() for values in floats):
        return None
    each = [np.isfinite(values.reshape(len(values), -1)).all(axis=1) for values in floats]
    valid: NDArray[np.bool_] = np.logical_and.reduce(each)
    return valid


def _only_valid(batch: _Batch) -> tuple[Rows, Outputs]:
    if batch.valid is None:
        return batch.rows, batch.outputs
    outputs = {name: values[batch.valid] for name, values in batch.outputs.items()}
    return batch.rows[batch.valid], outputs


def _groups(queue: list[PredictRequest], max_rows: int) -> list[list[PredictRequest]]:
    """Return the requests in groups that share a run, in order of arrival."""
    groups: list[list[PredictRequest]] = []
    open_groups: dict[str, tuple[list[PredictRequest], int]] = {}
    for request in queue:
        name = request.model.name
        group, rows = open_groups.get(name, ([], 0))
        if not group or rows + request.cells.rows > max_rows:
            group, rows = [], 0
            groups.append(group)
        group.append(request)
        open_groups[name] = (group, rows + request.cells.rows)
    return groups


def unpacked(body: Body, limits: Limits) -> bytes:
    """Return a body that was compressed with gzip.

    Raises
    ------
    BadInput
        If it is not one whole gzip stream.
    TooLarge
        If it becomes too large, or larger than its compressed size allows.
    """
    most = min(limits.body_bytes, max(_SMALL_TEXT, limits.gzip_ratio * len(body)))
    decompressor = zlib.decompressobj(_GZIP)
    try:
        text = decompressor.decompress(body, most + 1)
    except zlib.error:
        raise BadInput("The body is not valid gzip.", code=ErrorCode.MALFORMED) from None
    if len(text) > most:
        raise TooLarge(
            f"The body may have at most {limits.body_bytes} bytes, and {limits.gzip_ratio} times "
            "its compressed size."
        )
    if decompressor.unused_data:
        raise BadInput("Data follows the end of the gzip body.", code=ErrorCode.MALFORMED)
    if not decompressor.eof:
        raise BadInput("The gzip body is truncated.", code=ErrorCode.MALFORMED)
    return text


def _failure(model: ServedModel, error: BaseException) -> ModelFailed:
    return ModelFailed(
        f"{model.name} failed on this request ({type(error).__name__}); see its log."
    )
