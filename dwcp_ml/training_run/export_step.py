"""The export step: a trained and evaluated model becomes a finalized bundle with its report."""

from __future__ import annotations

import shutil
from pathlib import Path

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.champion import MANUAL
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.evaluation import Evaluation
from dwcp_ml.contract.models import ModelSpec
from dwcp_ml.contract.records import DataReport, ExportRecord, ModelReport, TrainingRecord
from dwcp_ml.files import write_text
from dwcp_ml.training_run import dataset as dataset_stage
from dwcp_ml.training_run import evaluation_step, training_step
from dwcp_ml.training_run.model_data import load_model_data
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event


def export_bundle(
    dataset: Path,
    trained: Path,
    evaluated: Path,
    output: Path,
    spec: ModelSpec,
    *,
    formats: tuple[str, ...],
    trigger: str = MANUAL,
    report: Reporter = ignore_event,
) -> ModelReport:
    """Write ``<output>/<model>/<version>/`` and return the report inside it.

    An existing bundle is never overwritten. If the model was not trained, or its export differs
    from it, the directory holds the report only: without a manifest no server loads it. ``trigger``
    says what started the run, for the lineage of the bundle.
    """
    records = (
        TrainingRecord.read(trained / training_step.RECORD_NAME),
        Evaluation.read(evaluated / evaluation_step.RECORD_NAME),
        DataReport.read(dataset / dataset_stage.REPORT_NAME),
    )
    from dwcp_ml.export.bundle import finalize_bundle, staging

    destination = output / spec.name / records[0].version
    with ProgressTask(f"export {spec.name}", report) as task, staging(destination) as directory:
        record, exported_spec = _export(dataset, trained, spec, records, directory, formats, task)
        record = record.replace(trigger=trigger)
        model_report = _write_reports(evaluated, directory, records, record)
        if record.success:
            finalize_bundle(directory, destination, exported_spec, model_report)
        else:
            directory.rename(destination)
        size = "" if record.model_size_mb is None else f"{record.model_size_mb:.2f} MB"
        task.finish(f"{model_report.verdict} {size}".strip())
    return model_report


def _export(
    dataset: Path,
    trained: Path,
    spec: ModelSpec,
    records: tuple[TrainingRecord, Evaluation, DataReport],
    directory: Path,
    formats: tuple[str, ...],
    task: ProgressTask,
) -> tuple[ExportRecord, ModelSpec]:
    record, evaluation, _ = records
    if not evaluation.success:
        failed = ExportRecord(
            model_name=spec.name,
            version=record.version,
            success=False,
            reason="There is no trained model to export.",
        )
        return failed, spec
    from dwcp_ml.export.exporter import export_model
    from dwcp_ml.models import load

    model = load(trained)
    data = load_model_data(dataset, spec, model.settings.data, record.form, record.seed)
    exported = export_model(
        model,
        data.test.inputs,
        directory,
        version=record.version,
        formats=formats,
        seed=record.seed,
        progress=task.advance,
    )
    if not exported.success:
        for path in directory.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return exported, model.spec


def _write_reports(
    evaluated: Path,
    directory: Path,
    records: tuple[TrainingRecord, Evaluation, DataReport],
    export: ExportRecord,
) -> ModelReport:
    from dwcp_ml.evaluation import PlotData, gate_model, model_html, model_markdown

    record, evaluation, data = records
    model_report = gate_model(record, evaluation, export, data)
    plot_data_path = evaluated / evaluation_step.PLOT_DATA_NAME
    plot_data = PlotData.load(plot_data_path) if plot_data_path.exists() else None
    texts = (
        model_report.to_json(),
        model_markdown(model_report),
        model_html(model_report, plot_data),
    )
    for name, text in zip(REPORT_NAMES, texts, strict=True):
        write_text(directory / name, text)
    return model_report


def read_report(bundle: Path) -> ModelReport:
    """Return the report of a bundle directory, finalized or not.

    Raises
    ------
    DwcpError
        If there is no report.
    """
    if not bundle.is_dir():
        raise DwcpError(f"There is no bundle at {bundle}.")
    return ModelReport.read(bundle / REPORT_NAMES[0])
