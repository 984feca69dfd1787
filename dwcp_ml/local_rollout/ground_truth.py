"""Ground truth for the requests to which both arms responded.

The replayed telemetry holds the outcome of each request, so it is known at once. It is withheld for
some time, as the next observation of a live link would be, and counts as pending until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.keys import link_of
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.local_rollout.replay import PredictRequest
from dwcp_ml.monitoring.ground_truth import KNOWN, REASONS, TelemetryTable, find_ground_truth
from dwcp_ml.monitoring.predictions import PREDICTIONS, Predictions, scalar
from dwcp_ml.prediction_log.loss import losses
from dwcp_ml.prediction_log.pairs import Arms, Both, Half, read_pairs
from dwcp_ml.rollout.observation import GroundTruthLoss


class GroundTruthSource:
    """The ground truth of every request of a replay, looked up once.

    Parameters
    ----------
    telemetry, incidents
        Files; incidents are the ground truth of the reliability detector.

    Raises
    ------
    DataRefused
        If a file can't be read.
    UsageError
        If no request has a known ground truth: the rollout would wait for the test for ever.
    """

    def __init__(
        self,
        spec: ModelSpec,
        telemetry: Path,
        incidents: Path | None,
        requests: Sequence[PredictRequest],
    ) -> None:
        from dwcp_ml.data.incidents import read_incidents

        self._spec = spec
        known = None if incidents is None else read_incidents(incidents)
        outcomes = find_ground_truth(
            _predictions(spec, requests), TelemetryTable(_rows(spec, telemetry), known)
        )
        self._ground_truth = {
            (link_of(request.link), request.observed_at): float(truth)
            for request, truth, reason in zip(
                requests, outcomes.values, outcomes.reason, strict=True
            )
            if reason == KNOWN
        }
        if not self._ground_truth:
            reasons = Counter(str(REASONS[code]) for code in outcomes.reason)
            raise UsageError(
                f"the ground-truth test has no data: no request to {spec.name} has a known outcome "
                f"({', '.join(reasons)}); name --incidents-path, or turn the test off."
            )

    def losses(self, requests: Sequence[Both]) -> tuple[GroundTruthLoss, ...]:
        """Return the loss of both arms, for the requests whose ground truth is known.

        Bandwidth: the absolute relative error, at most 1. The others: 0 if correct, 1 if wrong. A
        prediction that is missing or NaN has the loss 1.
        """
        labelled = [(each, self._ground_truth.get((each.stable.link or "", each.stable.moment)))
                  for each in requests]  # fmt: skip
        known = [(each, truth) for each, truth in labelled if truth is not None]
        if not known:
            return ()
        truth = np.array([truth for _, truth in known])
        stable = self._loss([each.stable for each, _ in known], truth)
        candidate = self._loss([each.candidate for each, _ in known], truth)
        return tuple(
            GroundTruthLoss(request_id=each.request_id, stable=float(ours), candidate=float(theirs))
            for (each, _), ours, theirs in zip(known, stable, candidate, strict=True)
            if np.isfinite(ours) and np.isfinite(theirs)
        )

    def _loss(self, halves: Sequence[Half], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        name = PREDICTIONS[self._spec.form().name][0]
        predicted = np.array([scalar(half.answers.get(0, {}).get(name)) for half in halves])
        missing = ~np.isfinite(predicted)
        loss = losses(self._spec.name, np.where(missing, 0.0, predicted), truth)
        loss = np.where(missing & np.isfinite(loss), 1.0, np.minimum(loss, 1.0))
        return np.asarray(loss, np.float64)


@dataclass(frozen=True)
class LabelledLosses:
    """Losses of one reading, the cursor after them, and the number of pending requests."""

    losses: tuple[GroundTruthLoss, ...]
    cursor: str
    pending: int


def read_losses(
    source: GroundTruthSource, arms: Arms, cursor: str, now: float, delay_seconds: float
) -> LabelledLosses:
    """Return the losses since ``cursor`` of requests that are ``delay_seconds`` old.

    Parameters
    ----------
    cursor
        Of the last reading whose result was stored; empty for the first.
    now
        Epoch seconds.
    delay_seconds
        Time after a response until its ground truth is known.

    Raises
    ------
    DataRefused, UsageError
        As ``read_pairs``.
    """
    due = read_pairs(arms, cursor, now - delay_seconds)
    waiting = read_pairs(arms, due.cursor, now)
    return LabelledLosses(source.losses(due.both), due.cursor, len(waiting.both))


def _rows(spec: ModelSpec, telemetry: Path) -> pd.DataFrame:
    from dwcp_ml.data.partitions import open_telemetry
    from dwcp_ml.data.reading import load

    present = open_telemetry(telemetry).header
    labels = [name for name in spec.labels if name in present]
    return load(telemetry, (*spec.needed_columns, *labels))


def _predictions(spec: ModelSpec, requests: Sequence[PredictRequest]) -> Predictions:
    count = len(requests)
    zeros = np.zeros(count)
    texts = np.empty(count, object)
    texts[:] = [request.link for request in requests]
    return Predictions(
        spec=spec,
        version="",
        request_id=texts,
        link=texts,
        row=np.zeros(count, np.int64),
        steps=np.full(count, spec.window, np.int64),
        moment=np.array([request.observed_at for request in requests]),
        prediction=zeros,
        score=zeros,
        digests=(),
        duplicates=0,
        other_form=0,
    )
