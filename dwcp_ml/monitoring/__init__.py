"""Delayed truth: what the server answered, held against the telemetry that came later.

- ``answers``: the prediction log, one row an answer, each once
- ``lookup``: rows of telemetry by series and moment
- ``truth``: what came true of each answer, or why that is not known
- ``losses``: what each answer cost, and the pairs that two versions make
- ``joining``: log and telemetry joined
- ``accuracy``: the figures of the offline report on what was joined
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
