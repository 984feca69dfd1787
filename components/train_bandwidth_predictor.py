"""Trains the bandwidth predictor, an LSTM."""

from kfp import dsl

from components._component import component


@component
def train_bandwidth_predictor(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Output[dsl.Model],
    version: str,
    data_digest: str,
    seed: int,
    model_options: dict,
) -> bool:
    """Train the bandwidth predictor, an LSTM.

    Args:
        dataset: The validated dataset.
        model: The trained model and its record.
        version: Version of the model.
        data_digest: Digest of the dataset.
        seed: Seed of the training.
        model_options: Model name -> ``dwcp_ml.training_run.options.ModelOptions`` as a mapping.

    Returns:
        Whether the model was trained; if not, its record says why, and the gate decides.
    """
    from pathlib import Path

    from dwcp_ml.training_run.dataset import check_dataset
    from dwcp_ml.training_run.training_step import train_task

    check_dataset(Path(dataset.path), data_digest)
    return train_task("bandwidth_predictor", dataset, model, version, seed, model_options)
