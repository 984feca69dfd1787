"""One prediction request, after its protocol has been decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dwcp_ml.serving.rejections import RequestRejected
from dwcp_ml.serving.served_model import Outputs, ServedModel
from dwcp_ml.serving.tensors import Rows

OnResult = Callable[[Outputs | RequestRejected], None]
"""Called once, on the event loop, with the predictions or with the reason why there are none."""


@dataclass(slots=True)
class PredictRequest:
    """Rows on their way to a model.

    Parameters
    ----------
    rows : float32 of shape (n, *model.shape)
    request_id, link, observed_at
        The request's headers; see docs/serving.md.
    protocol
        ``v1``, ``v2`` or ``grpc``, for the prediction log.
    on_result
        Receives the result.
    """

    model: ServedModel
    rows: Rows
    request_id: str
    link: str | None
    observed_at: str | None
    protocol: str
    on_result: OnResult
