"""Who is told of an answer: the sketches, and the prediction log if there is one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dwcp_ml.serving.metrics import ServerMetrics
from dwcp_ml.serving.served_model import Outputs
from dwcp_ml.serving.sketches import Sketches

if TYPE_CHECKING:
    from dwcp_ml.prediction_log.log import PredictionLog
    from dwcp_ml.serving.engine import Question


@dataclass(frozen=True)
class Observers:
    """What watches the answers.

    Parameters
    ----------
    metrics
        Counted by the protocols, because they alone know the code of an answer.
    sketches, log
        ``None`` turns one off.
    """

    metrics: ServerMetrics
    sketches: Sketches | None = None
    log: PredictionLog | None = None

    def answered(self, question: Question, answers: Outputs) -> None:
        """Note rows and their answers."""
        if self.sketches is not None:
            self.sketches.add(question.model, question.rows, answers)
        if self.log is not None:
            model = question.model
            self.log.offer(
                model.name,
                model.version,
                model.digest,
                question.request_id,
                question.link,
                epoch_seconds(question.observed_at),
                question.rows,
                answers,
                protocol=question.protocol,
            )


def epoch_seconds(text: str | None) -> float | None:
    """Return the time that ``X-DWCP-Observed-At`` names; ``None`` for none or for nonsense.

    A wrong header must not cost the client its answer: the log then has the server's clock.
    """
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        if moment.tzinfo is None:
            return None
        seconds = moment.timestamp()
    return seconds if 0.0 < seconds < time.time() + 10 * 365 * 86400 else None
