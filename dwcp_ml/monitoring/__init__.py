"""Delayed labels: the predictions of the server, compared with telemetry that came later.

- ``predictions``: the prediction log as columns, one row for each prediction
- ``lookup``: rows of telemetry by series and moment
- ``ground_truth``: the ground truth of each prediction, or why it is unknown
- ``losses``: the loss of each prediction, and the pairs of two versions
- ``joining``: joins the log with the telemetry
- ``accuracy``: the metrics of the offline report on the joined predictions
"""

from dwcp_ml.monitoring.accuracy import live_accuracy
from dwcp_ml.monitoring.joining import Sources, join, joined
from dwcp_ml.monitoring.losses import paired
from dwcp_ml.monitoring.records import Figure, LiveAccuracy, Unmatched, VersionResult

__all__ = [
    "Figure",
    "LiveAccuracy",
    "Sources",
    "Unmatched",
    "VersionResult",
    "join",
    "joined",
    "live_accuracy",
    "paired",
]
