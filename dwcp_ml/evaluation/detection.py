"""The metrics that both detectors share."""

from __future__ import annotations

from dwcp_ml.contract.arrays import Floats, Mask
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.evaluation import comparison
from dwcp_ml.evaluation.comparison import Blocks
from dwcp_ml.evaluation.events import event_recall, false_alarms_per_day
from dwcp_ml.evaluation.metrics import Metrics


def detection(
    data: ModelData, score: Floats, flagged: Mask, blocks: Blocks, *, of_events: str
) -> Metrics:
    """Return the metrics of scores and flags, of shape (n,), on the positives of the test split.

    Parameters
    ----------
    of_events
        Name of the metric that is the share of incidents or episodes with a flagged row.
    """
    truth = data.test.truth.astype(bool)
    hits = flagged & truth
    return Metrics(
        statistics={
            "recall": comparison.ratio(hits, truth, blocks),
            "precision": comparison.ratio(hits, flagged, blocks),
            "pr_auc": comparison.pr_auc(truth, score, blocks),
            "false_positive_rate": comparison.ratio(flagged & ~truth, ~truth, blocks),
            "prevalence": comparison.mean(truth, blocks),
        },
        plain={
            of_events: event_recall(data.test, flagged),
            "false_alarms_per_day": false_alarms_per_day(data.test, flagged, data.cadence_seconds),
        },
    )
