"""Live accuracy: the metrics of the offline report, on the predictions for real traffic."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import numpy as np

from dwcp_ml.contract.models import Target
from dwcp_ml.evaluation import bandwidth, classification, latency, reliability
from dwcp_ml.evaluation.comparison import Blocks, Statistic, blocks_for, interval, sampled
from dwcp_ml.evaluation.metrics import Metrics
from dwcp_ml.monitoring.joining import Sources, Version, join
from dwcp_ml.monitoring.records import Figure, LiveAccuracy, VersionResult
from dwcp_ml.training_run.progress import Reporter, ignore_event


def live_accuracy(sources: Sources, report: Reporter = ignore_event) -> LiveAccuracy:
    """Return the accuracy of each model version on the predictions with known ground truth.

    The same call with more telemetry joins more predictions.

    Raises
    ------
    DataRefused
        If the log can't be read, or the telemetry or the incidents break the contract.
    UsageError
        If an option is out of its range.
    """
    versions, data = join(sources, report)
    return LiveAccuracy(
        log=str(sources.log), results=tuple(result(each) for each in versions), data=data
    )


def result(version: Version) -> VersionResult:
    """Return the figures of one model version."""
    predictions, rows = version.predictions, version.rows
    moments = predictions.moment[rows]
    return VersionResult(
        model_name=predictions.spec.name,
        version=predictions.version,
        digests=predictions.digests,
        logged=len(predictions) + predictions.other_form,
        duplicates=predictions.duplicates,
        joined=len(rows),
        unmatched=version.unmatched,
        first_moment=_iso(moments.min()) if len(rows) else None,
        last_moment=_iso(moments.max()) if len(rows) else None,
        label_source=version.ground_truth.label_source,
        figures=figures(version),
        notes=_notes(version),
    )


def figures(version: Version) -> tuple[Figure, ...]:
    """Return every metric of one model version; targets first, none without a joined prediction."""
    if not len(version.rows):
        return ()
    blocks = blocks_for(version.data)
    metrics = _METRICS[version.predictions.spec.name](version, blocks)
    values = metrics.values(blocks)
    targets = {target.metric: target for target in version.predictions.spec.form().targets}
    ordered = sorted(values, key=lambda name: name not in targets)
    return tuple(
        _figure(name, values[name], metrics.statistics.get(name), blocks, targets.get(name))
        for name in ordered
    )


def _figure(
    metric: str,
    value: float | None,
    statistic: Statistic | None,
    blocks: Blocks,
    target: Target | None,
) -> Figure:
    found = None if statistic is None else interval(sampled(statistic, blocks), blocks)
    return Figure(
        metric=metric,
        value=value,
        lower=None if found is None else found.lower,
        upper=None if found is None else found.upper,
        target=target,
        met=None if target is None else target.met_by(value),
    )


def _bandwidth(version: Version, blocks: Blocks) -> Metrics:
    return bandwidth.metrics_of(version.data, version.predictions.prediction[version.rows], blocks)


def _compression(version: Version, blocks: Blocks) -> Metrics:
    level = version.predictions.prediction[version.rows].astype(np.int64)
    return classification.metrics_of(version.data, level, None, blocks)


def _reliability(version: Version, blocks: Blocks) -> Metrics:
    predictions, rows = version.predictions, version.rows
    flagged = predictions.prediction[rows] > 0
    return reliability.metrics_of(version.data, predictions.score[rows], flagged, blocks)


def _latency(version: Version, blocks: Blocks) -> Metrics:
    predictions, rows = version.predictions, version.rows
    flagged = predictions.prediction[rows] > 0
    score = predictions.score[rows]
    metrics = latency.metrics_of(version.data, score, flagged, blocks)
    metrics.statistics.update(latency.reconstruction_of(version.data, score, blocks))
    return metrics


_METRICS: Final[dict[str, Callable[[Version, Blocks], Metrics]]] = {
    "bandwidth_predictor": _bandwidth,
    "compression_selector": _compression,
    "reliability_detector": _reliability,
    "consensus_latency": _latency,
}
"""The metrics of each model by the code of its offline report."""


def _notes(version: Version) -> tuple[str, ...]:
    notes = list(version.ground_truth.notes)
    if len(version.predictions.digests) > 1:
        notes.append(
            f"{len(version.predictions.digests)} bundles made predictions as version "
            f"{version.predictions.version}: a version should name one."
        )
    if version.ground_truth.label_source == "derived":
        notes.append(
            "The telemetry holds no labels: a step counts as high by the derived rule, whose limit "
            "moves as telemetry is added."
        )
    if version.ground_truth.label_source == "cost_model":
        notes.append("The oracle is the documented cost model: there are no measured gains.")
    return tuple(notes)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat().replace("+00:00", "Z")
