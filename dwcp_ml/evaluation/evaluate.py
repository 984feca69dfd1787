"""Evaluate one trained model: its metrics, comparisons with references, and the ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from dwcp_ml.contract.arrays import Array, Floats
from dwcp_ml.contract.comparison import Comparison, ReferenceKind, Requirement
from dwcp_ml.contract.evaluation import Evaluation, Leak
from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import Form, ModelSpec, Target
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.evaluation import bandwidth, classification, comparison, latency, reliability
from dwcp_ml.evaluation.ceiling import Oracle, ceiling_values
from dwcp_ml.evaluation.comparison import Blocks, blocks_for
from dwcp_ml.evaluation.diagnostics.diagnose import diagnose
from dwcp_ml.evaluation.diagnostics.drift import drift_notes
from dwcp_ml.evaluation.diagnostics.importance import Predict
from dwcp_ml.evaluation.labels import is_error, is_share, label, quantity
from dwcp_ml.evaluation.leaks.text import describe
from dwcp_ml.evaluation.metrics import EvaluationResult, Metrics
from dwcp_ml.evaluation.plot_data import PlotData

Predictions = Mapping[str, Array]

EVALUATORS: Final[
    dict[str, Callable[[ModelData, Predictions, TrainingRecord, Blocks], EvaluationResult]]
] = {
    "next_throughput_mbps": bandwidth.evaluate,
    "bandwidth_class": classification.evaluate,
    "compression_level": classification.evaluate,
    "compression_type": classification.evaluate,
    "anomaly": reliability.evaluate,
    "high_latency": latency.evaluate,
}
"""The function that evaluates each form of a model's output."""

METRICS: Final[dict[str, Callable[[ModelData, Predictions, Blocks], Metrics]]] = {
    "next_throughput_mbps": bandwidth.model_metrics,
    "bandwidth_class": classification.model_metrics,
    "compression_level": classification.model_metrics,
    "compression_type": classification.model_metrics,
    "anomaly": reliability.model_metrics,
    "high_latency": latency.model_metrics,
}
"""The function that returns the metrics of each form, without any reference."""


def evaluate(
    data: ModelData,
    predictions: Predictions,
    training: TrainingRecord,
    targets: Sequence[Target],
    ceilings: Mapping[str, Any] | None = None,
    leaks: Sequence[Leak] = (),
    predict: Predict | None = None,
    oracle: Oracle | None = None,
) -> tuple[Evaluation, PlotData]:
    """Evaluate a trained model on the test split.

    Parameters
    ----------
    data
        The examples of the model: the predictions are of the test split, and the baselines are
        fitted on the training split.
    predictions
        Output name -> the model's values for ``data.test.inputs``.
    training
        How the model was trained; ``training.fitted`` holds its thresholds.
    targets
        The values that the metrics must reach.
    ceilings
        The simulator's entry for this model; ``None`` on data that were not simulated.
    leaks
        What ``leaks.find_leaks`` found in the data.
    predict
        Predicts raw inputs with the same model, for the diagnostics; without it there are none.
    oracle
        The predictions of the simulator's oracle; ``None`` on data that were not simulated.

    Returns the record, and the arrays that the plots of the report are drawn from. Raises
    ``DwcpError`` if a prediction is missing or has the wrong length.
    """
    if not len(data.test):
        reason = "The test split holds no example."
        return nothing_to_evaluate(data.spec, training, targets, reason), PlotData()
    blocks = blocks_for(data)
    form = data.spec.form(data.form)
    result = EVALUATORS[form.name](data, predictions, training, blocks)
    achieved = result.model.values(blocks)
    baselines = {name: each.values(blocks) for name, each in result.baselines.items()}
    references = {name: each.values(blocks) for name, each in result.references.items()}
    ceiling = ceiling_values(ceilings, form.name)
    compared = _comparisons(form, result, blocks)
    compared += _comparisons_with_oracle(oracle, data, predictions)
    diagnostics = None
    if predict is not None:
        diagnostics = diagnose(
            data, predictions, predict, training, METRICS[form.name],
            _best_strong(form, result, references), blocks,
        )  # fmt: skip
    evaluation = Evaluation(
        model_name=data.spec.name,
        version=training.version,
        form=form.name,
        success=True,
        test_set_size=len(data.test),
        label_source=data.label_source,
        targets=tuple(targets),
        metrics=achieved,
        missed_targets=tuple(t.metric for t in targets if not t.met_by(achieved.get(t.metric))),
        primary_metric=form.primary_metric,
        baselines=baselines,
        references=references,
        comparisons=tuple(compared),
        ceiling=ceiling,
        leaks=tuple(leaks),
        notes=(
            *result.notes,
            *_own_targets(form, targets),
            *_without_ceiling(ceiling, compared),
            *_accepted_leaks(leaks),
            *(drift_notes(diagnostics.drift) if diagnostics else ()),
        ),
        diagnostics=diagnostics,
    )
    return evaluation, PlotData(result.plot_arrays)


def nothing_to_evaluate(
    spec: ModelSpec, training: TrainingRecord, targets: Sequence[Target], reason: str | None = None
) -> Evaluation:
    """Return the record of a model that can't be evaluated, with the reason of the training."""
    form = spec.form(training.form)
    return Evaluation(
        model_name=spec.name,
        version=training.version,
        form=form.name,
        success=False,
        reason=reason or training.reason or "No model was trained.",
        test_set_size=0,
        label_source=training.label_source,
        targets=tuple(targets),
        metrics={target.metric: None for target in targets},
        missed_targets=tuple(target.metric for target in targets),
        primary_metric=form.primary_metric,
    )


def _comparisons(form: Form, result: EvaluationResult, blocks: Blocks) -> list[Comparison]:
    """Compare the model with every reference on each metric that the verdict depends on."""
    primary, better, not_worse = form.primary_metric, Requirement.BETTER, Requirement.NOT_WORSE
    rules = [
        (primary, ReferenceKind.NAIVE, better, result.baselines),
        (primary, ReferenceKind.STRONG, not_worse, result.references),
        *((guard, ReferenceKind.NAIVE, not_worse, result.baselines) for guard in form.guards),
    ]
    compared = []
    for metric, kind, requirement, references in rules:
        statistic = result.model.statistics.get(metric)
        if statistic is None:
            continue
        own = comparison.sampled(statistic, blocks)
        for name, metrics in references.items():
            theirs = comparison.sampled(metrics.statistics[metric], blocks)
            # On a metric that a reference does not have, nothing can be worse than it.
            if np.isfinite(theirs[0]):
                rule = (name, kind, metric, requirement)
                compared.append(paired_comparison(rule, own, theirs, blocks))
    return compared


def _comparisons_with_oracle(
    oracle: Oracle | None, data: ModelData, predictions: Predictions
) -> list[Comparison]:
    """Compare the model with the oracle on the test rows that both have predicted."""
    if oracle is None:
        return []
    mine, theirs = oracle.shared(data)
    if not len(mine):
        return []
    shared = replace(data, test=data.test.take(mine))
    blocks, metrics_of = blocks_for(shared), METRICS[data.form]
    model = metrics_of(shared, {name: each[mine] for name, each in predictions.items()}, blocks)
    compared = []
    for metric, outputs in oracle.predictions.items():
        best = metrics_of(shared, {name: each[theirs] for name, each in outputs.items()}, blocks)
        own, other = (comparison.sampled(m.statistics[metric], blocks) for m in (model, best))
        if np.isfinite(other[0]):
            rule = ("oracle", ReferenceKind.ORACLE, metric, Requirement.NOT_BETTER)
            compared.append(paired_comparison(rule, own, other, blocks))
    return compared


def paired_comparison(
    rule: tuple[str, ReferenceKind, str, Requirement], own: Floats, theirs: Floats, blocks: Blocks
) -> Comparison:
    """Return the comparison by a rule, from the ``sampled`` values of model and reference."""
    name, kind, metric, requirement = rule
    sign = -1.0 if is_error(metric) else 1.0
    return Comparison(
        reference=name,
        kind=kind,
        metric=metric,
        requirement=requirement,
        model_value=_finite(own[0]),
        reference_value=_finite(theirs[0]),
        margin=_margin(kind, metric),
        **_improvement(sign * (own - theirs), blocks),
    )


def _best_strong(
    form: Form, result: EvaluationResult, values: Mapping[str, Mapping[str, float | None]]
) -> tuple[str, Predictions] | None:
    """Return the strong reference with the best primary metric, and its predictions."""
    metric = form.primary_metric
    sign = -1.0 if is_error(metric) else 1.0
    known = {
        name: sign * value
        for name in result.strong_predictions
        if (value := values[name].get(metric)) is not None
    }
    if not known:
        return None
    best = max(known, key=lambda name: known[name])
    return best, result.strong_predictions[best]


def _margin(kind: ReferenceKind, metric: str) -> float:
    """Return the margin of equivalence; none beside a naive reference, or in other units."""
    naive = kind is ReferenceKind.NAIVE
    return comparison.MARGIN if not naive and is_share(metric) else 0.0


def _improvement(differences: Floats, blocks: Blocks) -> dict[str, Any]:
    """Return the fields of a comparison from paired differences; none where they are unknown."""
    found = comparison.interval(differences, blocks)
    if found is None:
        return {"improvement": _finite(differences[0])}
    return {
        "improvement": found.value,
        "lower": found.lower,
        "upper": found.upper,
        "resamples": found.resamples,
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _own_targets(form: Form, targets: Sequence[Target]) -> list[str]:
    """Return a note for each target that differs from the one in the contract."""
    contract = {target.metric: target for target in form.targets}
    return [
        f"The target of {label(target.metric)} was set to {target.direction} "
        f"{quantity(target.metric, target.value)} for this run; the contract requires "
        f"{usual.direction} {quantity(target.metric, usual.value)}."
        for target in targets
        if (usual := contract.get(target.metric)) is not None and usual != target
    ]


def _without_ceiling(
    ceiling: Mapping[str, float] | None, compared: Sequence[Comparison]
) -> list[str]:
    """Return a note if the ceiling is unknown, or the model was not compared with the oracle."""
    if ceiling is None:
        return [
            "The ceiling is unknown, because these data were not simulated. Leaks of labels into "
            "the features are searched for in the data alone."
        ]
    if not any(each.kind is ReferenceKind.ORACLE for each in compared):
        return [
            "The model was not compared with the oracle, which has predicted no example of this "
            "test split, or other labels."
        ]
    return []


def _accepted_leaks(leaks: Sequence[Leak]) -> list[str]:
    """Return a note for each leak that rejects nothing because the user knows of it."""
    return [f"Accepted leak ({leak.kind}): {describe(leak)}" for leak in leaks if leak.accepted]
