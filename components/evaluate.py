"""Evaluation: compares a trained model with its targets, baselines and ceilings."""

from kfp import dsl

from components._component import component


@component
def evaluate(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    model_name: str,
    data_digest: str,
    accept_leak: str,
    champions: dict,
    champion_rule: str,
) -> bool:
    """Evaluate one model on the test split.

    Args:
        dataset: The validated dataset.
        model: The trained model.
        evaluation: The evaluation's record, and the arrays behind its plots.
        metrics: The achieved metrics, for the Kubeflow page.
        model_name: Full name of the model.
        data_digest: Digest of the dataset.
        accept_leak: Columns whose leaks are known, comma-separated.
        champions: Full name of a model -> its champion, as JSON.
        champion_rule: What the model must be beside it: not_worse, better or off.

    Returns:
        Whether every target was met.
    """
    from pathlib import Path

    from dwcp_ml.contract.models import model_spec
    from dwcp_ml.training_run.champions import from_json
    from dwcp_ml.training_run.dataset import check_dataset
    from dwcp_ml.training_run.evaluation_step import evaluate_model
    from dwcp_ml.training_run.options import parse_leaks, run_options
    from dwcp_ml.training_run.progress import reporter_of

    check_dataset(Path(dataset.path), data_digest)
    result = evaluate_model(
        Path(dataset.path),
        Path(model.path),
        Path(evaluation.path),
        model_spec(model_name),
        reporter_of(),
        accept_leak=parse_leaks(accept_leak),
        champion=from_json(champions).get(model_name),
        champion_rule=run_options(champion_rule=champion_rule).champion_rule,
    )
    for name, value in result.metrics.items():
        if value is not None:
            metrics.log_metric(name, value)
    return result.success and not result.missed_targets
