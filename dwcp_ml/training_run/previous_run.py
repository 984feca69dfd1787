"""What is live on this machine before a run: the newest bundle of each model that was approved."""

from __future__ import annotations

from collections.abc import Iterator

from dwcp_ml.contract.bundle import MANIFEST_NAME, REPORT_NAMES
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.kube.manifests import storage_uri
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.session import LATEST_NAME, Session


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
    stable: dict[str, str] = {}
    specs = {spec.name: spec for spec in options.specs()}
    for run, report in _before(session):
        for name in set(report.approved) & specs.keys() - stable.keys():
            version = report.models[name].version
            if (run.models / name / version / MANIFEST_NAME).is_file():
                stable[name] = storage_uri(options.storage_prefix, "", specs[name], version)
        if stable.keys() == specs.keys():
            break
    words = ",".join(f"{name}={uri}" for name, uri in sorted(stable.items()))
    return options.replace(stable_uri=words)


def _before(session: Session) -> Iterator[tuple[Session, SessionReport]]:
    """Yield the runs before this one that have a report, the newest first."""
    own = session.directory.resolve()
    names = sorted((path.name for path in own.parent.iterdir() if path.is_dir()), reverse=True)
    for name in names:
        if name == LATEST_NAME or name >= own.name:
            continue
        run = Session(own.parent / name)
        try:
            yield run, SessionReport.read(run.directory / REPORT_NAMES[0])
        except (DwcpError, OSError):
            continue  # it was interrupted, or is of another release
