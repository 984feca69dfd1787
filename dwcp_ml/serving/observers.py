"""What receives every prediction: the sketches, and the prediction log if there is one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dwcp_ml.serving.kept_requests import KeptRequests
from dwcp_ml.serving.metrics import ServerMetrics
from dwcp_ml.serving.outcomes import Outcomes
from dwcp_ml.serving.request import PredictRequest
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.sketches import Sketches
from dwcp_ml.serving.tensors import Rows

if TYPE_CHECKING:
    from dwcp_ml.prediction_log.log import PredictionLog


@dataclass(frozen=True)
class Observers:
    """Metrics, sketches and the prediction log of one server.

    Parameters
    ----------
    metrics
        Counted by the protocols, because only they know the status code of a response.
    sketches, log, outcomes, kept
        ``None`` turns one off.
    """

    metrics: ServerMetrics
    sketches: Sketches | None = None
    log: PredictionLog | None = None
    outcomes: Outcomes | None = None
    kept: KeptRequests | None = None

    def record(
        self, model: ServedModel, rows: Rows, predictions: Outputs, firsts: list[int]
    ) -> None:
        """Add the rows of a batch and their predictions to the sketches, and keep some.

        Parameters
        ----------
        firsts
            The first row of each request, mirrored copies left out.
        """
        if self.sketches is not None:
            self.sketches.add(model, rows, predictions, firsts)
        if self.kept is not None and firsts:
            self.kept.add(model, rows, predictions, firsts)

    def log_request(self, request: PredictRequest, rows: Rows, predictions: Outputs) -> None:
        """Add the rows of one request and their predictions to the log."""
        if self.log is not None:
            model = request.model
            self.log.offer(
                model.name,
                model.version,
                model.digest,
                request.request_id,
                request.link,
                epoch_seconds(request.observed_at),
                rows,
                predictions,
                protocol=request.codec.protocol,
            )


def epoch_seconds(text: str | None) -> float | None:
    """Return the time in ``X-DWCP-Observed-At``; ``None`` if it is absent or invalid.

    An invalid header does not cost the client its prediction: the log then has the server's time.
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
