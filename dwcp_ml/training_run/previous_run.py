"""What is live on this machine before a run: the newest bundle of each model that was approved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME, REPORT_NAMES
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import model_spec
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.kube.manifests import storage_uri
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.session import Session, run_directories


def with_previous_bundles(session: Session, options: RunOptions) -> RunOptions:
    """Return the options with the previous approved bundle of each model as the stable one.

    The InferenceService that the gate writes is then a canary of it. Options that name a
    ``stable_uri``, also ``none``, are returned as they are.

    Parameters
    ----------
    session
        The run; only those before it in the same directory count.
    """
    if options.stable_uri.strip():
        return options
    words = ",".join(
        f"{name}={storage_uri(options.storage_prefix, '', model_spec(name), bundle.name)}"
        for name, bundle in sorted(previous_bundles(session, options).items())
    )
    return options.replace(stable_uri=words)


def previous_bundles(session: Session, options: RunOptions) -> dict[str, Path]:
    """Return model name -> its bundle in the newest run before this one that approved it."""
    own = session.directory.resolve()
    bundles: dict[str, Path] = {}
    for model, bundle in approved_bundles(own.parent, before=own.name):
        if model in options.models:
            bundles.setdefault(model, bundle)
        if len(bundles) == len(options.models):
            break
    return bundles


def approved_bundles(root: Path, before: str = "") -> Iterator[tuple[str, Path]]:
    """Yield the models that the runs in ``root`` approved and their bundles, newest run first.

    Parameters
    ----------
    before
        Name of a run: only those before it count; empty for all.
    """
    for path in sorted(run_directories(root), reverse=True):
        run = Session(path)
        if before and run.name >= before:
            continue
        try:
            report = SessionReport.read(run.directory / REPORT_NAMES[0])
        except (DwcpError, OSError):
            continue  # it was interrupted, or is of another release
        for model in sorted(report.approved):
            bundle = run.models / model / report.models[model].version
            if (bundle / MANIFEST_NAME).is_file():
                yield model, bundle
