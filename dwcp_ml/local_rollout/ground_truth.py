"""What came true of the requests that both arms answered.

The replayed telemetry holds the truth of its own past, so it is known at once; it is held back for
a while, as the next observation of a live link would be, and counts as pending until then.
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
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.local_rollout.replay import Question
from dwcp_ml.monitoring.ground_truth import KNOWN, REASONS, TelemetryTable, find_ground_truth
from dwcp_ml.monitoring.losses import losses
from dwcp_ml.monitoring.predictions import PREDICTIONS, Predictions, scalar
from dwcp_ml.prediction_log.pairs import Arms, Both, Half, read_pairs
from dwcp_ml.rollout.observation import GroundTruthLoss


class GroundTruthSource:
    """The truth of every question of a replay, looked up once.

    Parameters
    ----------
    spec
        The model that is asked.
    telemetry, incidents
        Files; incidents are what the reliability detector is judged by.
    asked
        The questions.

    Raises
    ------
    DataRefused
        If a file can't be read.
    UsageError
        If no question's truth can be known: a test that can't be fed would hold for ever.
    """

    def __init__(
        self, spec: ModelSpec, telemetry: Path, incidents: Path | None, asked: Sequence[Question]
    ) -> None:
        from dwcp_ml.data.incidents import read_incidents

        self._spec = spec
        known = None if incidents is None else read_incidents(incidents)
        found = find_ground_truth(
            _answers(spec, asked), TelemetryTable(_rows(spec, telemetry), known)
        )
        self._truth = {
            (question.link, question.observed_at): float(truth)
            for question, truth, reason in zip(asked, found.values, found.reason, strict=True)
            if reason == KNOWN
        }
        if not self._truth:
            reasons = Counter(str(REASONS[code]) for code in found.reason)
            raise UsageError(
                f"the truth test can't be fed: of no request to {spec.name} the truth is known "
                f"({', '.join(reasons)}); name --incidents-path, or turn the test off."
            )

    def losses(self, requests: Sequence[Both]) -> tuple[GroundTruthLoss, ...]:
        """Return what both arms' answers cost, for the requests whose truth is known.

        Bandwidth: the absolute relative error, 1 at most. The others: 0 for right, 1 for wrong. An
        answer that is missing or no number costs 1.
        """
        judged = [(each, self._truth.get((each.stable.link or "", each.stable.moment)))
                  for each in requests]  # fmt: skip
        known = [(each, truth) for each, truth in judged if truth is not None]
        if not known:
            return ()
        truth = np.array([truth for _, truth in known])
        stable = self._cost([each.stable for each, _ in known], truth)
        candidate = self._cost([each.candidate for each, _ in known], truth)
        return tuple(
            GroundTruthLoss(request_id=each.request_id, stable=float(ours), candidate=float(theirs))
            for (each, _), ours, theirs in zip(known, stable, candidate, strict=True)
            if np.isfinite(ours) and np.isfinite(theirs)
        )

    def _cost(self, halves: Sequence[Half], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        name = PREDICTIONS[self._spec.form().name][0]
        answers = np.array([scalar(half.answers.get(0, {}).get(name)) for half in halves])
        missing = ~np.isfinite(answers)
        cost = losses(self._spec, np.where(missing, 0.0, answers), truth)
        cost = np.where(missing & np.isfinite(cost), 1.0, np.minimum(cost, 1.0))
        return np.asarray(cost, np.float64)


@dataclass(frozen=True)
class Labelled:
    """What one reading adds: losses, the cursor behind them, and how many still wait."""

    losses: tuple[GroundTruthLoss, ...]
    cursor: str
    pending: int


def read_losses(
    known: GroundTruthSource, arms: Arms, cursor: str, now: float, delay_seconds: float
) -> Labelled:
    """Return what came true since ``cursor`` of what was answered ``delay_seconds`` ago.

    Parameters
    ----------
    cursor
        Of the last reading whose result was kept; empty for the first.
    now
        Epoch seconds.
    delay_seconds
        How long after its answer a truth is known.

    Raises
    ------
    DataRefused, UsageError
        As ``read_pairs``.
    """
    due = read_pairs(arms, cursor, now - delay_seconds)
    waiting = read_pairs(arms, due.cursor, now)
    return Labelled(known.losses(due.both), due.cursor, len(waiting.both))


def _rows(spec: ModelSpec, telemetry: Path) -> pd.DataFrame:
    from dwcp_ml.data.reading import load
    from dwcp_ml.data.source import open_source

    present = open_source(telemetry).header
    labels = [name for name in spec.labels if name in present]
    return load(telemetry, (*spec.needed_columns, *labels))


def _answers(spec: ModelSpec, asked: Sequence[Question]) -> Predictions:
    count = len(asked)
    zeros = np.zeros(count)
    texts = np.empty(count, object)
    texts[:] = [question.link for question in asked]
    return Predictions(
        spec=spec,
        version="",
        request_id=texts,
        link=texts,
        row=np.zeros(count, np.int64),
        steps=np.full(count, spec.window, np.int64),
        moment=np.array([question.observed_at for question in asked]),
        prediction=zeros,
        score=zeros,
        digests=(),
        duplicates=0,
        other_form=0,
    )
