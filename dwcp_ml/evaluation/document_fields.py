"""The fields of a model's report as the architecture document defines them.

The top level of ``report.json`` has the names and the types of the document: metrics without a unit
in their name, targets and hyperparameters as plain numbers. The records below the top level have
our own fields, which say more: ``evaluation.targets`` with the direction of each target,
``evaluation.metrics`` with units in the names, ``training.hyperparameters`` in sections.
"""

from __future__ import annotations

from typing import Any, Final

from dwcp_ml.contract.records import TrainingRecord

METRIC_NAMES: Final = {"mape_percent": "mape", "mae_mbps": "mae", "rmse_mbps": "rmse"}
"""Our name of a metric -> the document's name, where they differ."""


def metric_name(metric: str) -> str:
    """Return the document's name of a metric.

    >>> metric_name("mape_percent"), metric_name("correlation")
    ('mape', 'correlation')
    """
    return METRIC_NAMES.get(metric, metric)


def hyperparameters(training: TrainingRecord) -> dict[str, Any]:
    """Return the settings of a model without their sections, and the number of epochs trained.

    ``epochs`` is the maximum that was set, ``epochs_trained`` the number that was run; a model that
    is not trained in epochs has neither. Two settings of one name are a ``ValueError``.
    """
    flat: dict[str, Any] = {}
    for name, value in training.hyperparameters.items():
        for key, setting in (value if isinstance(value, dict) else {name: value}).items():
            if key in flat:
                raise ValueError(f"Two settings of {training.model_name} are called '{key}'.")
            flat[key] = setting
    if "epochs" in flat:
        flat["epochs_trained"] = len(training.epochs)
    return flat
