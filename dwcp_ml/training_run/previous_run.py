"""What is live on this machine before a run: the newest bundle of each model that was approved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME, REPORT_NAMES
from dwcp_ml.contract.errors import DwcpError
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
    specs = {spec.name: spec for spec in options.specs()}
    own = session.directory.resolve()
    stable: dict[str, str] = {}
    for model, bundle in approved_bundles(own.parent, before=own.name):
        if model in specs and model not in stable:
            stable[model] = storage_uri(options.storage_prefix, "", specs[model], bundle.name)
        if stable.keys() == specs.keys():
            break
    words = ",".join(f"{name}={uri}" for name, uri in sorted(stable.items()))
    return options.replace(stable_uri=words)


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
