"""The evaluation of one model: metrics, baselines, the comparison that decides, the ceiling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from dwcp_ml.contract.examples import ModelData
from dwcp_ml.contract.models import Form, ModelSpec, Target
from dwcp_ml.contract.records import Comparison, Evaluation, TrainingRecord
from dwcp_ml.evaluation import bandwidth, classification, comparison, latency, reliability
from dwcp_ml.evaluation.ceiling import Ceiling
from dwcp_ml.evaluation.comparison import Blocks, blocks_for
from dwcp_ml.evaluation.labels import label, quantity, target_text
from dwcp_ml.evaluation.metrics import Assessment, Standing
from dwcp_ml.evaluation.plot_data import Evidence

Predictions = Mapping[str, NDArray[Any]]

ASSESSMENTS: Final[
    dict[str, Callable[[ModelData, Predictions, TrainingRecord, Blocks], Assessment]]
] = {
    "next_throughput_mbps": bandwidth.assess,
    "bandwidth_class": classification.assess,
    "compression_level": classification.assess,
    "compression_type": classification.assess,
    "anomaly": reliability.assess,
    "high_latency": latency.assess,
}
"""How each form of an answer is assessed."""


BOUGHT: Final = frozenset({"recall"})
"""Metrics that false alarms can buy: flagging everything reaches 1, so passing a ceiling that was
computed at another share of false alarms shows no leak. PR-AUC is what a leak would show in."""


def evaluate(
    data: ModelData,
    predictions: Predictions,
    training: TrainingRecord,
    targets: Sequence[Target],
    ceilings: Mapping[str, Any] | None = None,
) -> tuple[Evaluation, Evidence]:
    """Evaluate a trained model on the test split.

    Parameters
    ----------
    data
        The examples the model was trained on; only contenders look at the training split.
    predictions
        The model's outputs for ``data.test.inputs``, by name.
    training
        How it was trained; thresholds are taken from ``training.fitted``.
    targets
        What it must reach.
    ceilings
        The simulator's entry for this model; ``None`` on data that were not simulated.

    Returns
    -------
    Evaluation, Evidence
        The record, and the arrays that the plots are drawn from.

    Raises
    ------
    DwcpError
        If an output is missing or of the wrong length.
    """
    if not len(data.test):
        reason = "the test split holds no example."
        return nothing_to_evaluate(data.spec, training, targets, reason), Evidence()
    blocks = blocks_for(data)
    form = data.spec.form(data.form)
    assessment = ASSESSMENTS[form.name](data, predictions, training, blocks)
    achieved = assessment.model.metrics(blocks)
    baselines = {name: each.metrics(blocks) for name, each in assessment.baselines.items()}
    references = {name: each.metrics(blocks) for name, each in assessment.references.items()}
    ceiling = Ceiling.read(ceilings, form.name)
    above = _above(ceiling, assessment.model, achieved, data, blocks)
    evaluation = Evaluation(
        model_name=data.spec.name,
        version=training.version,
        form=form.name,
        success=True,
        test_set_size=len(data.test),
        label_source=data.label_source,
        target_metrics={target.metric: target_text(target) for target in targets},
        achieved_metrics=achieved,
        missed_targets=tuple(t.metric for t in targets if not t.met_by(achieved.get(t.metric))),
        primary_metric=form.primary_metric,
        baselines=baselines,
        references=references,
        comparison=_against_the_best(form, assessment, baselines, blocks),
        ceiling=ceiling.values if ceiling else None,
        ceiling_standard_error=ceiling.errors if ceiling else {},
        above_ceiling=above,
        notes=(
            *assessment.notes,
            *_better_references(form, achieved, references),
            *_own_targets(form, targets),
            *_no_ceiling(ceiling),
        ),
    )
    return evaluation, Evidence(assessment.evidence)


def nothing_to_evaluate(
    spec: ModelSpec,
    training: TrainingRecord,
    targets: Sequence[Target],
    reason: str | None = None,
) -> Evaluation:
    """Return the record of a model that can't be evaluated; the reason is the training's own."""
    form = spec.form(training.form)
    return Evaluation(
        model_name=spec.name,
        version=training.version,
        form=form.name,
        success=False,
        reason=reason or training.reason or "nothing was trained.",
        test_set_size=0,
        label_source=training.label_source,
        target_metrics={target.metric: target_text(target) for target in targets},
        achieved_metrics={target.metric: None for target in targets},
        missed_targets=tuple(target.metric for target in targets),
        primary_metric=form.primary_metric,
    )


def _against_the_best(
    form: Form,
    assessment: Assessment,
    baselines: Mapping[str, Mapping[str, float | None]],
    blocks: Blocks,
) -> Comparison | None:
    """Compare the model with the baseline that is best on the primary metric of the test split."""
    metric = form.primary_metric
    sign = -1.0 if form.primary_lower_is_better else 1.0
    reached = {n: sign * v for n, m in baselines.items() if (v := m.get(metric)) is not None}
    if not reached:
        return None
    best = max(reached, key=lambda name: reached[name])
    pair = assessment.model.statistics[metric], assessment.baselines[best].statistics[metric]
    return comparison.compare(
        metric, best, pair, blocks, lower_is_better=form.primary_lower_is_better
    )


def _above(
    ceiling: Ceiling | None,
    model: Standing,
    achieved: Mapping[str, float | None],
    data: ModelData,
    blocks: Blocks,
) -> tuple[str, ...]:
    """Return the metrics that pass the ceiling by more than the statistical error of both."""
    if ceiling is None:
        return ()
    passed = []
    for metric, statistic in model.statistics.items():
        value = achieved[metric]
        if value is None or metric not in ceiling.values or metric in BOUGHT:
            continue
        error = comparison.standard_error(statistic, blocks)
        # These are shares of the positives only.
        few = metric in ("pr_auc", "precision")
        count = int(data.test.truth.sum()) if few else len(data.test)
        if ceiling.passed_by(metric, value, error, count):
            passed.append(metric)
    return tuple(passed)


def _better_references(
    form: Form,
    achieved: Mapping[str, float | None],
    references: Mapping[str, Mapping[str, float | None]],
) -> list[str]:
    """Return a note for each reference that does better: it does not decide, and is not hidden."""
    metric = form.primary_metric
    own, sign = achieved[metric], -1.0 if form.primary_lower_is_better else 1.0
    return [
        f"The reference {name}, which does not decide, does better on these data: "
        f"{label(metric)} {quantity(metric, theirs)}, the model's {quantity(metric, own)}."
        for name, metrics in references.items()
        if own is not None and (theirs := metrics[metric]) is not None and sign * (theirs - own) > 0
    ]


def _own_targets(form: Form, targets: Sequence[Target]) -> list[str]:
    """Return a note for each target that is not the contract's."""
    contract = {target.metric: target for target in form.targets}
    return [
        f"The target of {label(target.metric)} was set to {target.direction} "
        f"{quantity(target.metric, target.value)} for this run; the contract asks for "
        f"{usual.direction} {quantity(target.metric, usual.value)}."
        for target in targets
        if (usual := contract.get(target.metric)) is not None and usual != target
    ]


def _no_ceiling(ceiling: Ceiling | None) -> list[str]:
    if ceiling is not None:
        return []
    return ["The ceiling is not known: these data were not simulated, so no leak could be seen."]
