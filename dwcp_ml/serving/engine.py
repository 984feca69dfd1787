"""What happens to a request between the protocols and the model.

Requests that arrive in the same turn of the event loop, on whatever connection and protocol, are
answered by one run of the model: at one connection that costs nothing, at many it is most of the
throughput. No request ever waits for another to arrive.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.refusals import Failed, NotServed, Refused, Unavailable, shorten
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows

if TYPE_CHECKING:
    from dwcp_ml.serving.observers import Observers

_log = logging.getLogger(__name__)

Done = Callable[[Outputs | Refused], None]
"""Called once, on the event loop, with the answers to the rows or with why there are none."""


@dataclass(slots=True)
class Question:
    """Rows on their way to a model.

    Parameters
    ----------
    rows : float32 of shape (n, *model.shape)
    request_id, link, observed_at
        What the client said of the request; see docs/serving.md.
    protocol
        ``v1``, ``v2`` or ``grpc``, for the log.
    done
        Whom to tell.
    """

    model: ServedModel
    rows: Rows
    request_id: str
    link: str | None
    observed_at: str | None
    protocol: str
    done: Done


class Engine:
    """The models, and the queue of what was asked in this turn of the event loop.

    Parameters
    ----------
    models
        By full name, ready.
    limits
        See ``Limits``.
    observers
        Told of every answer: metrics, sketches, the prediction log.
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
        self._queue: list[Question] = []
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="large-requests")
        self._large = 0  # requests that the thread has not answered yet

    @property
    def ready(self) -> bool:
        """Whether every model is warm and the server is not going down."""
        return not self.draining and all(model.ready for model in self.models.values())

    def model(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model by its full name.

        Raises
        ------
        NotServed
            If it is not here, or in another version.
        Unavailable
            If it is not warm yet.
        """
        model = self.models.get(name)
        if model is None:
            here = ", ".join(self.models)
            raise NotServed(f"there is no model '{shorten(name)}' here, only {here}.")
        if version is not None and version != model.version:
            raise NotServed(
                f"{name} is served in version {model.version}, not '{shorten(version)}'."
            )
        if not model.ready:
            raise Unavailable(f"{name} is not ready yet.")
        return model

    def ask(self, question: Question) -> None:
        """Answer a question in this turn of the event loop; a large one as soon as a thread can."""
        self.in_flight += 1
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        if len(question.rows) > self.limits.inline_rows:
            self._ask_thread(question, self._loop)
            return
        self._queue.append(question)
        if len(self._queue) == 1:
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Answer everything that is queued now."""
        queue, self._queue = self._queue, []
        if len(queue) == 1:
            self._answer(queue)
            return
        for together in _batches(queue, self.limits.batch_rows):
            self._answer(together)

    def _answer(self, together: list[Question]) -> None:
        model = together[0].model
        try:
            if len(together) == 1:
                answers = model.run(together[0].rows)
            else:
                answers = model.run(np.concatenate([question.rows for question in together]))
        except Exception as error:
            _log.exception("%s failed on %d requests", model.name, len(together))
            for question in together:
                self._finish(question, _failure(model, error))
            return
        if len(together) == 1:
            self._finish(together[0], answers)
            return
        start = 0
        for question in together:
            end = start + len(question.rows)
            self._finish(question, {name: part[start:end] for name, part in answers.items()})
            start = end

    def _ask_thread(self, question: Question, loop: asyncio.AbstractEventLoop) -> None:
        if self._large >= self.limits.waiting_large:
            busy = Unavailable(
                f"{self._large} large requests are waiting already: send this one again later, "
                "or in smaller parts."
            )
            loop.call_soon(self._finish, question, busy)
            return
        self._large += 1
        running = loop.run_in_executor(self._threads, question.model.run, question.rows)
        running.add_done_callback(partial(self._told_by_thread, question))

    def _told_by_thread(self, question: Question, running: asyncio.Future[Outputs]) -> None:
        self._large -= 1
        model = question.model
        if running.cancelled():
            self._finish(question, Unavailable("the server is going down."))
            return
        error = running.exception()
        if error is None:
            self._finish(question, running.result())
            return
        _log.error("%s failed on %d rows", model.name, len(question.rows), exc_info=error)
        self._finish(question, _failure(model, error))

    def _finish(self, question: Question, answers: Outputs | Refused) -> None:
        self.in_flight -= 1
        if not isinstance(answers, Refused) and not _finite(answers):
            # JSON would say null, and a client would read that as nought.
            _log.error("%s gave an answer that is not finite", question.model.name)
            answers = Failed(f"{question.model.name} has no finite answer to this request.")
        try:
            question.done(answers)
        except Exception:  # one broken connection must not take the others' answers away
            _log.exception("an answer of %s could not be sent", question.model.name)
        if isinstance(answers, Refused):
            return
        try:
            self.observers.answered(question, answers)
        except Exception:  # what watches must not break what it watches
            _log.exception("an answer of %s could not be observed", question.model.name)

    def close(self) -> None:
        """Stop the thread for large requests."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _batches(queue: list[Question], most_rows: int) -> list[list[Question]]:
    """Return the questions in groups that one run each can answer, in order of arrival."""
    groups: list[list[Question]] = []
    open_groups: dict[str, tuple[list[Question], int]] = {}
    for question in queue:
        name = question.model.name
        group, rows = open_groups.get(name, ([], 0))
        if not group or rows + len(question.rows) > most_rows:
            group, rows = [], 0
            groups.append(group)
        group.append(question)
        open_groups[name] = (group, rows + len(question.rows))
    return groups


def _finite(answers: Outputs) -> bool:
    return all(
        values.dtype.kind != "f" or bool(np.isfinite(values).all()) for values in answers.values()
    )


def _failure(model: ServedModel, error: BaseException) -> Failed:
    return Failed(f"{model.name} failed on this request ({type(error).__name__}); see its log.")
