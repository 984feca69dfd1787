"""The evaluation step: a trained model on the test split, compared with baselines and ceilings."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dwcp_ml.contract.champion import ChampionRule, ChampionSource
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.files import atomic_directory, write_text
from dwcp_ml.storage.addresses import absolute
from dwcp_ml.training_run import champions, cross_validation, training_step
from dwcp_ml.training_run.dataset import make_dataset
from dwcp_ml.training_run.leak_data import leaks_of
from dwcp_ml.training_run.model_data import load_ceilings, load_model_data, load_oracle
from dwcp_ml.training_run.options import ModelOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event
from dwcp_ml.training_run.session import Session

RECORD_NAME = "evaluation.json"
PLOT_DATA_NAME = "plot_data.npz"


def evaluate_model(
    dataset: Path,
    trained: Path,
    output: Path,
    spec: ModelSpec,
    report: Reporter = ignore_event,
    *,
    accept_leak: Sequence[str] = (),
    champion: ChampionSource | None = None,
    champion_rule: ChampionRule = "not_worse",
) -> Evaluation:
    """Evaluate the model in ``trained`` on the test split of ``dataset``; write to ``output``.

    The data are searched for leaks; those in ``accept_leak`` reject nothing. If there is a champion
    the model is compared with it by the rule. A model that could not be trained is not evaluated:
    the record then repeats the reason.
    """
    from dwcp_ml.evaluation import evaluate, nothing_to_evaluate

    record = TrainingRecord.read(trained / training_step.RECORD_NAME)
    targets = ModelOptions(targets=record.targets).targets_of(spec, record.form)
    with ProgressTask(f"evaluate {spec.name}", report) as task, atomic_directory(output) as staging:
        if not record.success:
            evaluation = nothing_to_evaluate(spec, record, targets)
            task.finish("there is no trained model")
        else:
            from dwcp_ml.models import load

            model = load(trained)
            data = load_model_data(dataset, spec, model.settings.data, record.form, record.seed)
            leaks = leaks_of(dataset, spec, model.settings.data, record.seed, accept_leak)
            predictions = model.predict(data.test.inputs)
            ceilings = load_ceilings(dataset, spec)
            oracle = load_oracle(dataset, record.form)
            evaluation, plot_data = evaluate(
                data, predictions, record, targets, ceilings, leaks,
                predict=model.predict, oracle=oracle,
            )  # fmt: skip
            if champion is not None and evaluation.success:
                evaluation = champions.compare(
                    evaluation, data, predictions, model.spec, champion, champion_rule
                )
            if record.data_use is not None:
                warnings = tuple(each.message for each in record.data_use.warnings)
                evaluation = evaluation.replace(notes=(*warnings, *evaluation.notes))
            summary = trained / cross_validation.SUMMARY_NAME
            if summary.exists():
                evaluation = evaluation.replace(
                    cross_validation=json.loads(summary.read_text(encoding="utf-8"))
                )
            plot_data.save(staging / PLOT_DATA_NAME)
            task.finish(_outcome(evaluation))
        write_text(staging / RECORD_NAME, evaluation.to_json())
    return evaluation


def _outcome(evaluation: Evaluation) -> str:
    missed, leaks = evaluation.missed_targets, [leak.column for leak in evaluation.leaks]
    words = f"missed: {', '.join(missed)}" if missed else "every target met"
    return f"{words}; leaks: {', '.join(leaks)}" if leaks else words


def evaluate_run(
    session: Session,
    specs: Sequence[ModelSpec],
    *,
    data_path: str | None = None,
    incidents_path: str | None = None,
    accept_leak: Sequence[str] | None = None,
    output: Path | None = None,
    report: Reporter = ignore_event,
) -> dict[str, Evaluation]:
    """Evaluate the models of a run again, on the run's own data or on another file.

    Parameters
    ----------
    accept_leak
        Columns whose leaks are known; ``None`` for those of the run.

    Returns
    -------
    dict
        Model name -> its evaluation; the files go to ``output`` (by default of the run).
    """
    with tempfile.TemporaryDirectory() as scratch:
        dataset = session.dataset
        run_options = session.options()
        known = run_options.accept_leak if accept_leak is None else accept_leak
        sources = champions.champions_of(session, run_options)
        if data_path is not None:
            dataset = Path(scratch) / "dataset"
            options = run_options.replace(
                data_path=absolute(data_path),
                incidents_path=incidents_path or "",
                data_start="",
                data_end="",
                models=tuple(spec.name for spec in specs),
            )
            make_dataset(options, dataset, report)
        evaluations = {}
        for spec in specs:
            directory = session.evaluated(spec.name) if output is None else output / spec.name
            trained = session.trained(spec.name)
            evaluations[spec.name] = evaluate_model(
                dataset,
                trained,
                directory,
                spec,
                report,
                accept_leak=known,
                champion=sources.get(spec.name),
                champion_rule=run_options.champion_rule,
            )
    return evaluations
