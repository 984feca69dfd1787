"""The request queue between the protocols and the models.

Requests that arrive in the same iteration of the event loop, on any connection and protocol, share
one run of the model. With one connection this costs nothing; with many it gives most of the
throughput. A request never waits for another request to arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.observers import Observers
from dwcp_ml.serving.rejections import (
    ModelFailed,
    ModelNotFound,
    ModelUnavailable,
    RequestRejected,
    shorten,
)
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel

_log = logging.getLogger(__name__)


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
        self._loop: asyncio.AbstractEventLoop | None = None
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

    def submit(self, request: PredictRequest) -> None:
        """Run a request in this iteration of the event loop, or a large one in the thread."""
        self.in_flight += 1
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if len(request.rows) > self.limits.inline_rows:
            self._submit_to_thread(request, self._loop)
            return
        self._queue.append(request)
        if len(self._queue) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Run everything that is queued now."""
        queue, self._queue = self._queue, []
        if len(queue) == 1:
            self._run(queue)
            return
        for batch in _batches(queue, self.limits.batch_rows):
            self._run(batch)

    def _run(self, batch: list[PredictRequest]) -> None:
        model = batch[0].model
        try:
            if len(batch) == 1:
                outputs = model.run(batch[0].rows)
            else:
                outputs = model.run(np.concatenate([request.rows for request in batch]))
        except Exception as error:
            _log.exception("%s failed on %d requests", model.name, len(batch))
            for request in batch:
                self._finish(request, _failure(model, error))
            return
        if len(batch) == 1:
            self._finish(batch[0], outputs)
            return
        start = 0
        for request in batch:
            end = start + len(request.rows)
            self._finish(request, {name: part[start:end] for name, part in outputs.items()})
            start = end

    def _submit_to_thread(self, request: PredictRequest, loop: asyncio.AbstractEventLoop) -> None:
        if self._large_in_flight >= self.limits.waiting_large:
            busy = ModelUnavailable(
                f"{self._large_in_flight} large requests are waiting already: send this one again "
                "later, or in smaller parts."
            )
            loop.call_soon(self._finish, request, busy)
            return
        self._large_in_flight += 1
        running = loop.run_in_executor(self._threads, request.model.run, request.rows)
        running.add_done_callback(partial(self._finish_from_thread, request))

    def _finish_from_thread(
        self, request: PredictRequest, running: asyncio.Future[Outputs]
    ) -> None:
        self._large_in_flight -= 1
        model = request.model
        if running.cancelled():
            self._finish(request, ModelUnavailable("The server is shutting down."))
            return
        error = running.exception()
        if error is None:
            self._finish(request, running.result())
            return
        _log.error("%s failed on %d rows", model.name, len(request.rows), exc_info=error)
        self._finish(request, _failure(model, error))

    def _finish(self, request: PredictRequest, result: Outputs | RequestRejected) -> None:
        self.in_flight -= 1
        if not isinstance(result, RequestRejected) and not _are_finite(result):
            # JSON would carry null, which a client would read as zero.
            _log.error("%s returned a prediction that is not finite", request.model.name)
            result = ModelFailed(f"{request.model.name} has no finite prediction for this request.")
        try:
            request.on_result(result)
        except Exception:  # one broken connection must not cost the others their responses
            _log.exception("a prediction of %s could not be sent", request.model.name)
        if isinstance(result, RequestRejected):
            return
        try:
            self.observers.record(request, result)
        except Exception:  # a failing observer must not stop the server
            _log.exception("a prediction of %s could not be recorded", request.model.name)

    def close(self) -> None:
        """Stop the thread for large requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _batches(queue: list[PredictRequest], max_rows: int) -> list[list[PredictRequest]]:
    """Return the requests in groups that share a run, in order of arrival."""
    groups: list[list[PredictRequest]] = []
    open_groups: dict[str, tuple[list[PredictRequest], int]] = {}
    for request in queue:
        name = request.model.name
        group, rows = open_groups.get(name, ([], 0))
        if not group or rows + len(request.rows) > max_rows:
            group, rows = [], 0
            groups.append(group)
        group.append(request)
        open_groups[name] = (group, rows + len(request.rows))
    return groups


def _are_finite(outputs: Outputs) -> bool:
    return all(
        values.dtype.kind != "f" or bool(np.isfinite(values).all()) for values in outputs.values()
    )


def _failure(model: ServedModel, error: BaseException) -> ModelFailed:
    return ModelFailed(
        f"{model.name} failed on this request ({type(error).__name__}); see its log."
    )
