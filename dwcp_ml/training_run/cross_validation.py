"""Cross-validation: the same settings trained and evaluated on several splits of the examples.

Models of time series use a rolling origin, bandwidth also leaves links out, and compression is
stratified as well. Without cross-validation a compression model with a stratified split is still
checked on one temporal split. The test split of the run is in no fold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dwcp_ml.contract.errors import TrainingFailed
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.examples import CompressionData, DataSettings
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.files import write_text
from dwcp_ml.training_run import training_step
from dwcp_ml.training_run.model_data import load_model_data
from dwcp_ml.training_run.options import ModelOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event

SUMMARY_NAME = "cross_validation.json"


def cross_validate(
    dataset: Path,
    trained: Path,
    spec: ModelSpec,
    options: ModelOptions,
    *,
    seed: int,
    report: Reporter = ignore_event,
) -> dict[str, Any]:
    """Train and evaluate ``options.cross_validation`` folds by each method of the model.

    The summary is written next to the trained model, where the evaluation reads it; without folds
    there is none. A fold that can't be trained is listed with its reason.
    """
    from dwcp_ml.evaluation.folds import folds, summary
    from dwcp_ml.models import create

    record = TrainingRecord.read(trained / training_step.RECORD_NAME)
    model = create(spec.name, options.overrides(spec))
    methods = _methods(spec, model.settings.data, options.cross_validation)
    if not methods:
        return {}
    data = load_model_data(dataset, spec, model.settings.data, model.form, seed)
    by_method: dict[str, Sequence[Evaluation]] = {}
    with ProgressTask(f"cross-validate {spec.name}", report) as task:
        for index, (method, count) in enumerate(methods.items()):
            evaluations: list[Evaluation] = []
            try:
                for done, fold in enumerate(folds(data, method, count, seed)):
                    task.advance((index + done / count) / len(methods), fold.name)
                    evaluations.append(_one_fold(fold.data, record, spec, options, seed))
            except TrainingFailed as error:
                evaluations.append(_failed(record, spec, options, str(error)))
            by_method[method] = evaluations
    result = summary(spec, by_method)
    write_text(trained / SUMMARY_NAME, json.dumps(result, indent=2) + "\n")
    return result


def _methods(spec: ModelSpec, settings: DataSettings, count: int) -> dict[str, int]:
    """Return method -> number of folds; ``count`` is the option, 0 for no cross-validation."""
    from dwcp_ml.evaluation.folds import METHODS, TEMPORAL

    methods = dict.fromkeys(METHODS[spec.name] if count else (), count)
    if isinstance(settings, CompressionData) and settings.split == "stratified":
        methods |= {TEMPORAL: 1} if settings.temporal_check else {}
    return methods


def _one_fold(
    data: Any, record: TrainingRecord, spec: ModelSpec, options: ModelOptions, seed: int
) -> Evaluation:
    from dwcp_ml.evaluation import evaluate
    from dwcp_ml.models import create
    from dwcp_ml.models.protocol import FitContext

    model = create(spec.name, options.overrides(spec))
    targets = options.targets_of(spec, model.form)
    try:
        result = model.fit(
            data, FitContext(seed=seed, threads=training_step.THREADS, epochs=options.epochs)
        )
    except TrainingFailed as error:
        return _failed(record, spec, options, str(error))
    fold_record = record.replace(
        rows=data.rows,
        epochs=result.epochs,
        fitted=result.fitted,
        threshold_source=result.threshold_source,
    )
    evaluation, _ = evaluate(data, model.predict(data.test.inputs), fold_record, targets, None)
    return evaluation


def _failed(
    record: TrainingRecord, spec: ModelSpec, options: ModelOptions, reason: str
) -> Evaluation:
    from dwcp_ml.evaluation import nothing_to_evaluate

    failed = record.replace(success=False, reason=reason)
    return nothing_to_evaluate(spec, failed, options.targets_of(spec, record.form))
