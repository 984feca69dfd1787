"""The training step of one model; a failed training is a record, not an exception."""

from __future__ import annotations

import datetime
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dwcp_ml.contract.errors import TrainingFailed, UsageError
from dwcp_ml.contract.models import ModelSpec, model_spec
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.export.provenance import library_versions
from dwcp_ml.files import atomic_directory, write_text
from dwcp_ml.training_run.model_data import load_model_data, load_stream
from dwcp_ml.training_run.options import ModelOptions, run_options
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event, reporter_of

if TYPE_CHECKING:
    from dwcp_ml.contract.examples import DataSettings, ModelData
    from dwcp_ml.data.training_stream import TrainingStream

RECORD_NAME = "training.json"

THREADS = 1
"""Threads of one trainer: one everywhere, so that parallel and sequential runs give the same
weights; two trainers in parallel use two cores better than one trainer with two threads."""

CHECKPOINT_VARIABLE = "DWCP_CHECKPOINTS"
"""Environment variable: the directory of the checkpoints of interrupted trainings."""

_LIBRARIES = ("tensorflow-cpu", "tensorflow", "keras", "scikit-learn", "numpy", "pandas", "onnx")


def train_model(
    dataset: Path,
    output: Path,
    spec: ModelSpec,
    options: ModelOptions,
    *,
    version: str,
    seed: int,
    report: Reporter = ignore_event,
) -> TrainingRecord:
    """Train one model on a dataset and write it, with its record, to the directory ``output``.

    A model that can't be trained is not an exception: the record says ``success: false`` and why,
    so that the other models of the run go on and the gate decides.

    Raises
    ------
    UsageError
        If the options are invalid.
    """
    from dwcp_ml.models import create

    model = create(spec.name, options.overrides(spec))
    started = time.monotonic()
    common: dict[str, Any] = {
        "model_name": spec.name,
        "version": version,
        "form": model.form,
        "training_date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "hyperparameters": model.settings.model_dump(mode="json"),
        "seed": seed,
        "threads": THREADS,
        "libraries": library_versions(_LIBRARIES),
        "targets": {t.metric: t.value for t in options.targets_of(spec, model.form)},
    }
    with atomic_directory(output) as staging:
        reason, learned = None, {}
        try:
            with ProgressTask(f"train {spec.name}", report) as task:
                learned = _fit(dataset, staging, model, options, seed, task)
        except UsageError:
            raise
        except TrainingFailed as error:
            reason = str(error)
        except Exception as error:  # one model's failure must not stop the others
            reason = f"Training stopped: {type(error).__name__}: {error}"
            traceback.print_exc()
        record = TrainingRecord(
            success=reason is None,
            reason=reason,
            training_time_seconds=time.monotonic() - started,
            **common,
            **learned,
        )
        write_text(staging / RECORD_NAME, record.to_json())
    return record


def _fit(
    dataset: Path, staging: Path, model: Any, options: ModelOptions, seed: int, task: ProgressTask
) -> dict[str, Any]:
    from dwcp_ml.data.use import with_training
    from dwcp_ml.models.protocol import EpochProgress, FitContext

    spec = model.spec
    data = load_model_data(dataset, spec, model.settings.data, model.form, seed)
    checkpoints = os.environ.get(CHECKPOINT_VARIABLE)
    training = getattr(model.settings, "training", None)
    count = training.examples_per_epoch if training else None
    stream = _stream(dataset, staging, data, model.settings.data, task) if count else None

    def on_progress(progress: EpochProgress) -> None:
        task.advance(progress.done, progress.describe())

    result = model.fit(
        data,
        FitContext(
            seed=seed,
            threads=THREADS,
            epochs=options.epochs,
            checkpoint_directory=Path(checkpoints) / spec.name if checkpoints else None,
            progress=on_progress,
            stream=stream,
        ),
    )
    model.save(staging)
    streamed = None if stream is None else len(stream)
    seen = min(len(result.epochs) * count, streamed) if count and streamed else len(data.train)
    use = data.use and with_training(
        data.use, spec, model.settings.data, seen, result.left_out, streamed
    )
    done = f"{len(result.epochs)} epochs" if result.epochs else "fitted"
    warnings = [f"warning: {warning.message}" for warning in use.warnings] if use else []
    task.finish("; ".join([done, *warnings]))
    return {
        "rows": data.rows,
        "data_use": use,
        "label_source": data.label_source,
        "epochs": result.epochs,
        "fitted": result.fitted,
        "threshold_source": result.threshold_source,
    }


def _stream(
    dataset: Path, directory: Path, data: ModelData, settings: DataSettings, task: ProgressTask
) -> TrainingStream:
    def on_progress(share: float) -> None:
        task.advance(0.0, f"writing the rows of the training split to a file, {share:.0%}")

    stream = load_stream(dataset, data, settings, directory, on_progress)
    size = f"{stream.bytes_on_disk / 1e9:.2f} GB on disk"
    task.advance(0.0, f"a stream of {len(stream):,} examples, {size}")
    return stream


def train_task(
    name: str, dataset: Any, model: Any, version: str, seed: int, model_options: dict[str, Any]
) -> bool:
    """Train one model as a Kubeflow task: the body of the four trainers' components.

    ``dataset`` and ``model`` are the task's artifacts; the result is whether a model was trained.
    """
    options = run_options(model_options=model_options, seed=seed)
    record = train_model(
        Path(dataset.path),
        Path(model.path),
        model_spec(name),
        options.of(name),
        version=version,
        seed=seed,
        report=reporter_of(),
    )
    model.metadata.update({"version": version, "seconds": round(record.training_time_seconds, 1)})
    return record.success
