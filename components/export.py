"""Export: a finalized bundle that is verified to equal the trained model."""

from kfp import dsl

from components._component import component


@component
def export(
    dataset: dsl.Input[dsl.Dataset],
    model: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    bundle: dsl.Output[dsl.Model],
    report_page: dsl.Output[dsl.HTML],
    report_text: dsl.Output[dsl.Markdown],
    model_name: str,
    data_digest: str,
    export_formats: str,
    trigger: str,
) -> str:
    """Export one model and run its gate.

    Args:
        dataset: The validated dataset.
        model: The trained model.
        evaluation: The evaluation's record and plot data.
        bundle: The directory that contains ``<model>/<version>/``.
        report_page: The model's report as one HTML page.
        report_text: The same as Markdown.
        model_name: Full name of the model.
        data_digest: Digest of the dataset.
        export_formats: Formats, comma-separated; ONNX is always among them.
        trigger: What started the run.

    Returns:
        APPROVED or REJECTED.
    """
    import shutil
    from pathlib import Path

    from dwcp_ml.contract.models import model_spec
    from dwcp_ml.training_run.dataset import check_dataset
    from dwcp_ml.training_run.export_step import export_bundle
    from dwcp_ml.training_run.options import parse_formats
    from dwcp_ml.training_run.progress import reporter_of

    check_dataset(Path(dataset.path), data_digest)
    report = export_bundle(
        Path(dataset.path),
        Path(model.path),
        Path(evaluation.path),
        Path(bundle.path),
        model_spec(model_name),
        formats=parse_formats(export_formats),
        trigger=trigger,
        report=reporter_of(),
    )
    directory = Path(bundle.path) / report.model_name / report.version
    shutil.copyfile(directory / "report.html", report_page.path)
    shutil.copyfile(directory / "report.md", report_text.path)
    bundle.metadata.update({"version": report.version, "verdict": report.verdict})
    return report.verdict
