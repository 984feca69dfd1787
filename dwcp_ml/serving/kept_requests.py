"""The newest requests with their predictions, which a rollout sends to a candidate to compare.

They are features, so they may say something about whoever sent them. They are kept in memory only,
bounded in number and age, and read on a port of their own, which a network policy opens for the
operator alone.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from dwcp_ml.contract.bundle import TensorRecord
from dwcp_ml.contract.champion import MAX_ANSWERS, SCORES
from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.headers import MAX_PAGE_VALUES
from dwcp_ml.serving.rejections import ModelNotFound, shorten
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.sketches import compared_output
from dwcp_ml.serving.tensors import Rows

MAX_KEPT: Final = 1024
"""Requests of each model."""

MAX_AGE_SECONDS: Final = 300.0
"""Older ones are not handed out, and are dropped with the next request."""

MAX_OF_ANSWER: Final = 192
"""Requests of each class or flag: the newest of a rare one are not lost among the others."""

MAX_AGE_OF_ANSWER_SECONDS: Final = 86_400.0
"""Of these: flags come with an incident, and there may be one a day."""

_MIN_GAP_SECONDS: Final = 0.01
"""Between two requests of a model, or of one answer, that are kept: above 100 a second a sample is
enough."""


class _Kept(NamedTuple):
    number: int
    at: float
    features: NDArray[np.float32]
    prediction: float
    score: float | None


class _Ring(deque[_Kept]):
    """The newest requests, at most a number of them and no older than an age in seconds."""

    def __init__(self, most: int, oldest: float) -> None:
        super().__init__(maxlen=most)
        self._oldest = oldest

    def is_due(self, now: float) -> bool:
        """Return whether none was kept just now."""
        return not self or now - self[-1].at >= _MIN_GAP_SECONDS

    def drop_old(self, now: float) -> None:
        while self and now - self[0].at > self._oldest:
            self.popleft()


class _ModelRequests:
    """The kept requests of one model; ``seen`` numbers them, from 1."""

    def __init__(self, model: ServedModel, output: TensorRecord) -> None:
        self.model, self.output = model, output.name
        names = {each.name for each in model.outputs if not each.shape}
        score = SCORES.get(output.name)
        self.score = score if score in names else None
        self.newest = _Ring(MAX_KEPT, MAX_AGE_SECONDS)
        self.by_answer: dict[float, _Ring] = {}
        self.has_answers = output.dtype in ("bool", "int64")
        self.seen = 0

    @property
    def rings(self) -> list[_Ring]:
        return [self.newest, *self.by_answer.values()]

    def drop_old(self, now: float) -> None:
        for ring in self.rings:
            ring.drop_old(now)

    def add(self, rows: Rows, predictions: Outputs, firsts: list[int], now: float) -> None:
        """Keep the first of the rows, and the first with each answer."""
        chosen = {firsts[0]: [self.newest]} if self.newest.is_due(now) else {}
        if self.has_answers:
            answers = predictions[self.output][firsts].astype(np.float64).tolist()
            for answer, row in dict(zip(reversed(answers), reversed(firsts), strict=True)).items():
                ring = self._ring_of(answer)
                if ring is not None and ring.is_due(now):
                    chosen.setdefault(row, []).append(ring)
        for row, rings in chosen.items():
            self.seen += 1
            each = self._kept(rows, predictions, row, now)
            for ring in rings:
                ring.drop_old(now)
                ring.append(each)

    def _ring_of(self, answer: float) -> _Ring | None:
        if answer not in self.by_answer and len(self.by_answer) == MAX_ANSWERS:
            return None
        return self.by_answer.setdefault(answer, _Ring(MAX_OF_ANSWER, MAX_AGE_OF_ANSWER_SECONDS))

    def _kept(self, rows: Rows, predictions: Outputs, row: int, now: float) -> _Kept:
        score = None if self.score is None else float(predictions[self.score][row])
        prediction = float(predictions[self.output][row])
        return _Kept(self.seen, now, rows[row].reshape(-1).copy(), prediction, score)

    def since(self, after: int, limit: int) -> tuple[list[_Kept], list[_Kept]]:
        """Return the newest requests that came after a number, and further ones of rare answers.

        The latter are at most three quarters of the limit, the same number of each answer but the
        commonest. Both are oldest first.
        """
        newest = [each for each in self.newest if each.number > after]
        newest = newest[max(len(newest) - limit, 0) :]
        most = limit * 3 // 4
        shown = {each.number for each in newest[max(len(newest) - (limit - most), 0) :]}
        quota = most // max(len(self.by_answer) - 1, 1)
        rare: list[_Kept] = []
        counts = Counter(each.prediction for each in self.newest)
        for answer in sorted(self.by_answer, key=counts.__getitem__)[:-1]:
            own = [
                each
                for each in self.by_answer[answer]
                if each.number > after and each.number not in shown
            ]
            rare += own[max(len(own) - quota, 0) :]
        rare.sort()
        numbers = {each.number for each in rare}
        newest = [each for each in newest if each.number not in numbers]
        return newest[max(len(newest) + len(rare) - limit, 0) :], rare


class KeptRequests(Collector):
    """The kept requests of all models, as a Prometheus collector that says on which port they are.

    Parameters
    ----------
    port
        Where they are read.
    """

    def __init__(
        self, models: Iterable[ServedModel], registry: CollectorRegistry, port: int
    ) -> None:
        self._port = port
        self._started_at = time.time()
        self._models: dict[str, _ModelRequests] = {}
        for model in models:
            output = compared_output(model)
            if output is not None:
                self._models[model.name] = _ModelRequests(model, output)
        registry.register(self)

    def add(self, model: ServedModel, rows: Rows, predictions: Outputs, firsts: list[int]) -> None:
        """Keep one row of a batch, and one of each answer, unless another was kept just now.

        Parameters
        ----------
        firsts
            The first row of each request, ascending; at least one.
        """
        of_model = self._models.get(model.name)
        if of_model is not None:
            of_model.add(rows, predictions, firsts, time.monotonic())

    def since(self, name: str, after: int, limit: int) -> dict[str, Any]:
        """Return the newest requests of a model that came after a number, oldest first.

        Those that are kept for their answer, marked ``rare``, follow the others.

        Parameters
        ----------
        after
            Number of the last request that is known; 0 for all.
        limit
            At most this number of them, the newest.

        Raises
        ------
        ModelNotFound
            If no requests of such a model are kept.
        """
        of_model = self._models.get(name)
        if of_model is None:
            raise ModelNotFound(
                f"No requests of a model '{shorten(name)}' are kept here.",
                code=ErrorCode.UNKNOWN_NAME,
                subject=shorten(name),
            )
        of_model.drop_old(time.monotonic())
        values = math.prod(of_model.model.shape)
        fitting = MAX_PAGE_VALUES // max(values, 1)
        newest, rare = of_model.since(after, min(limit, fitting))
        return {
            "model": name,
            "version": of_model.model.version,
            "digest": of_model.model.digest,
            "started_at": self._started_at,
            "last": of_model.seen,
            "output": of_model.output,
            "too_large": not fitting,
            "requests": [_shown(each, rare=False) for each in newest]
            + [_shown(each, rare=True) for each in rare],
        }

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield ``dwcp_kept_requests``."""
        kept = GaugeMetricFamily(
            "dwcp_kept_requests",
            "Newest requests that this server keeps in memory, for a rollout to compare a "
            "candidate's predictions with; port is where the operator reads them.",
            labels=["model", "version", "port"],
        )
        for name, of_model in self._models.items():
            of_model.drop_old(time.monotonic())
            number = len({each.number for ring in of_model.rings for each in ring})
            kept.add_metric([name, of_model.model.version, str(self._port)], number)
        yield kept


def _shown(kept: _Kept, *, rare: bool) -> dict[str, Any]:
    fields = {"features": kept.features, "prediction": kept.prediction, "rare": rare}
    return fields if kept.score is None else {**fields, "score": kept.score}
