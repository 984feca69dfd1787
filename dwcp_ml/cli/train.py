"""``dwcp-ml train``: train all models, or one with the command of its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dwcp_ml.cli import shared
from dwcp_ml.cli.run_options import RUN, TRAINING, RunCommand, RunGroup, chosen_options
from dwcp_ml.contract.errors import UsageError, did_you_mean
from dwcp_ml.contract.models import MAX_FALSE_ALARMS_PER_LINK_DAY

_CORES = os.cpu_count() or 1

_epochs = click.option(
    "--epochs",
    type=click.IntRange(1),
    help="Maximum number of epochs; early stopping can end the training sooner.",
)
_config = click.option(
    "--config",
    metavar="FILE",
    help="YAML file with settings of the models: model -> section -> key.",
)
_folds = click.option(
    "--cross-validation", type=click.IntRange(2, 20), metavar="K",
    help="Also train and evaluate K folds, and report the spread of the metrics.",
)  # fmt: skip
_resume = click.option(
    "--resume", metavar="RUN", help="Resume an interrupted run; RUN is its directory."
)
_output_dir = shared.output_dir(
    "Directory of the runs: each run has its own directory in it, DIR/latest is the newest."
)


def _output(suffix: str) -> Callable[[shared.F], shared.F]:
    return click.option(
        "--output",
        metavar="FILE",
        help=f"Also write the trained model to this file, which ends in {suffix} or .onnx.",
    )


def _share(name: str, default: float | None, help_text: str) -> Callable[[shared.F], shared.F]:
    return click.option(name, type=click.FloatRange(0.0, 1.0), default=default, help=help_text)


def _form(*names: str) -> Callable[[shared.F], shared.F]:
    return click.option("--output-form", type=click.Choice(names), help="Output form of the model.")


@click.group("train", cls=RunGroup, run_options=RUN, invoke_without_command=True)
@_output_dir
@_share("--target-accuracy", None, "Target of accuracy, recall and correlation. [default: 0.98]")
@_epochs
@click.option(
    "--validation-split",
    type=click.FloatRange(0.01, 0.7),
    help="Share of the rows in the validation split. [default: 0.15]",
)
@click.option(
    "--parallel",
    is_flag=False,
    flag_value=_CORES,
    default=_CORES,
    type=click.IntRange(1),
    metavar="[N]",
    help="Models trained at the same time. [default: one per core]",
)
@click.option(
    "--output-form",
    multiple=True,
    metavar="MODEL=FORM",
    help="Another output form: bandwidth=bandwidth_class, compression=compression_type.",
)
@_config
@_folds
@shared.simulator
@_resume
@shared.as_json
@click.pass_context
def group(context: click.Context, /, **chosen: Any) -> None:  # fmt: skip
    """Train, evaluate, export and gate all models of --models, or one with a command below.

    \b
    dwcp-ml train                                    on simulated telemetry
    dwcp-ml train --data-path t.csv --incidents-path i.json --parallel
    dwcp-ml train --models bandwidth,latency --epochs 20
    dwcp-ml train bandwidth --data-path t.csv --target-mape 5.0
    """
    if context.invoked_subcommand is not None:
        return
    _run(chosen)


def _run(chosen: dict[str, Any], targets: dict[str, float] | None = None) -> None:
    from dwcp_ml.contract.models import model_specs
    from dwcp_ml.training_run.model_file import ModelFile
    from dwcp_ml.training_run.options import GENERAL_ACCURACY, ModelOptions

    specs = model_specs(chosen["models"])
    target_values = dict(targets or {})
    if chosen.get("target_accuracy") is not None and targets is None:
        target_values = dict.fromkeys(GENERAL_ACCURACY, chosen["target_accuracy"])
    forms = _forms(chosen.get("output_form") or ())
    settings = _settings(chosen.get("config"))
    model_options = {
        spec.name: ModelOptions(
            form=forms.get(spec.name),
            epochs=chosen.get("epochs"),
            validation_fraction=chosen.get("validation_split"),
            window=chosen.get("window_size"),
            targets=target_values,
            settings=settings.get(spec.name, {}),
            cross_validation=chosen.get("cross_validation") or 0,
        )
        for spec in specs
    }
    options = chosen_options(
        chosen,
        simulator=shared.key_values(chosen.get("simulator") or ()),
        model_options=model_options,
    )
    output = chosen.get("output")
    model_file = ModelFile.parse(output, specs[0]) if output else None
    if model_file is not None:
        options = options.replace(export_formats=model_file.formats(options.export_formats))
    shared.run_and_finish(
        chosen["output_dir"],
        options,
        chosen["resume"],
        chosen.get("parallel") or 1,
        chosen["as_json"],
        model_file,
    )


def _forms(pairs: tuple[str, ...]) -> dict[str, str]:
    from dwcp_ml.contract.models import model_spec

    forms = {}
    for pair in pairs:
        name, separator, form = pair.partition("=")
        if not separator:
            raise UsageError(f"--output-form {pair} is not MODEL=FORM.")
        spec = model_spec(name)
        forms[spec.name] = spec.form(form).name
    return forms


def _settings(path: str | None) -> dict[str, dict[str, Any]]:
    """Read a YAML of overrides: the model's full or short name -> its sections."""
    if path is None:
        return {}
    import yaml

    from dwcp_ml.contract.models import MODELS, model_spec

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Can't read the settings {path}: {error}.") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}.") from error
    if not isinstance(content, dict):
        allowed = did_you_mean("", MODELS)
        raise UsageError(f"{path} must map a model's name to its settings. {allowed}.")
    return {model_spec(str(name)).name: value or {} for name, value in content.items()}


def _single(function: shared.F) -> shared.F:
    for option in (shared.as_json, _resume, _folds, _config, _output_dir):
        function = option(function)
    return function


@group.command("bandwidth", cls=RunCommand, run_options=TRAINING)
@_output(".keras")
@_share(
    "--target-correlation",
    0.98,
    "Target of the correlation, over all rows and within a link. [default: 0.98]",
)
@click.option(
    "--target-mape",
    type=click.FloatRange(0, min_open=True),
    default=5.0,
    show_default=True,
    help="Target of MAPE, in percent.",
)
@_epochs
@_form("next_throughput_mbps", "bandwidth_class")
@_share(
    "--target-accuracy", 0.98, "Target of the accuracy of the form bandwidth_class. [default: 0.98]"
)
@_single
def bandwidth(
    target_correlation: float, target_mape: float, target_accuracy: float, **chosen: Any
) -> None:  # fmt: skip
    """Train the bandwidth predictor, an LSTM (train_lstm.py)."""
    _train_one(
        "bandwidth_predictor",
        {
            "correlation": target_correlation,
            "correlation_within_link_median": target_correlation,
            "mape_percent": target_mape,
            "accuracy": target_accuracy,
        },
        chosen,
    )


@group.command("compression", cls=RunCommand, run_options=TRAINING)
@_output(".keras")
@_share("--target-accuracy", 0.98, "Target of the accuracy against the oracle. [default: 0.98]")
@_epochs
@_form("compression_level", "compression_type")
@_single
def compression(target_accuracy: float, **chosen: Any) -> None:
    """Train the compression selector, a policy network (train_compression_selector.py)."""
    _train_one("compression_selector", {"accuracy": target_accuracy}, chosen)


@group.command("reliability", cls=RunCommand, run_options=TRAINING)
@_output(".pkl")
@_share("--target-recall", 0.98, "Target of the recall on labelled incidents. [default: 0.98]")
@_share(
    "--target-pr-auc", 0.90, "Target of the area under the precision-recall curve. [default: 0.90]"
)
@click.option(
    "--target-false-alarms",
    type=click.FloatRange(0),
    default=MAX_FALSE_ALARMS_PER_LINK_DAY,
    show_default=True,
    help="Upper limit of the false alarms per link and day.",
)
@_single
def reliability(
    target_recall: float, target_pr_auc: float, target_false_alarms: float, **chosen: Any
) -> None:
    """Train the reliability detector, an isolation forest (train_isolation_forest.py)."""
    _train_one(
        "reliability_detector",
        {
            "recall": target_recall,
            "pr_auc": target_pr_auc,
            "false_alarms_per_link_day": target_false_alarms,
        },
        chosen,
    )


@group.command("latency", cls=RunCommand, run_options=TRAINING)
@_output(".keras")
@_share("--target-accuracy", 0.98, "Target of the detection accuracy. [default: 0.98]")
@click.option(
    "--window-size",
    type=click.IntRange(2, 500),
    default=20,
    show_default=True,
    help="Time steps of a window.",
)
@_epochs
@_single
def latency(target_accuracy: float, **chosen: Any) -> None:
    """Train the consensus-latency detector, an LSTM autoencoder (train_lstm_autoencoder.py)."""
    _train_one("consensus_latency", {"detection_accuracy": target_accuracy}, chosen)


def _train_one(model: str, targets: dict[str, float], chosen: dict[str, Any]) -> None:
    form = chosen.pop("output_form", None)
    forms = (f"{model}={form}",) if form else ()
    _run({**chosen, "models": model, "output_form": forms, "parallel": 1}, targets)
