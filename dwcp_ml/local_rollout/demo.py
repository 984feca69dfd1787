"""The demonstration rollouts of a run: the new model over the previous one, then a broken one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.errors import BundleRefused, DwcpError
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.contract.records import SessionReport
from dwcp_ml.files import link
from dwcp_ml.local_rollout.broken_bundles import FAULTS, break_bundle
from dwcp_ml.local_rollout.driver import End
from dwcp_ml.local_rollout.running import rollout_request
from dwcp_ml.local_rollout.store import Store
from dwcp_ml.training_run.options import ModelOptions
from dwcp_ml.training_run.previous_run import approved_bundles
from dwcp_ml.training_run.progress import Reporter, ignore_event
from dwcp_ml.training_run.session import Session
from dwcp_ml.training_run.worker_pool import Job, WorkerRequest, run_jobs

SETTINGS: Final = Path(__file__).with_suffix(".yaml")

SHORT_EPOCHS: Final = 3
"""Training epochs of the model that replaces the previous one at the first run."""

MODEL: Final = BANDWIDTH.name


@dataclass(frozen=True)
class DemoRollout:
    """One rollout of the demonstration."""

    name: str
    title: str
    stable: Path
    candidate: Path
    expected: End


def demo_rollouts(
    session: Session, session_report: SessionReport, report: Reporter = ignore_event
) -> Iterator[DemoRollout]:
    """Yield the rollouts to run; none if the bandwidth predictor was not approved.

    Raises
    ------
    DwcpError
        If there is no previous model and none can be trained in its place.
    """
    model_report = session_report.models.get(MODEL)
    if model_report is None or model_report.verdict != "APPROVED":
        return
    new = session.models / MODEL / session.name
    previous = previous_bundle(session, model_report.training.form)
    origin = "that of the run before"
    if previous is None:
        previous = shorter_training(session, report)
        origin = f"one trained for {SHORT_EPOCHS} epochs with another seed"
    yield DemoRollout(
        MODEL, f"the approved {MODEL} over {origin}", previous, new, expected="Promoted"
    )
    broken = session.work / "demo" / "broken" / MODEL / f"{session.name}-broken"
    if not broken.exists():
        break_bundle(new, broken, "scale")
    yield DemoRollout(
        f"{MODEL}-broken",
        f"a {MODEL} broken on purpose ({FAULTS['scale'][0]}) over the approved one",
        new,
        broken,
        expected="RolledBack",
    )


def create_store(session: Session, rollout: DemoRollout) -> Store:
    """Create the directory of one rollout, with the settings of ``demo.yaml``."""
    settings = demo_settings()
    store = Store(session.rollouts / rollout.name)
    store.create(
        rollout_request(
            rollout.stable,
            rollout.candidate,
            session.dataset / "telemetry.parquet",
            requests_per_second=settings["requests_per_second"],
            settings=settings["rollout"],
            label_delay_seconds=settings["label_delay_seconds"],
        )
    )
    return store


def demo_settings() -> dict[str, Any]:
    """Return what ``demo.yaml`` holds."""
    import yaml

    settings: dict[str, Any] = yaml.safe_load(SETTINGS.read_text(encoding="utf-8"))
    return settings


def previous_bundle(session: Session, form: str) -> Path | None:
    """Return the approved bandwidth predictor of the newest run before this one, if any opens."""
    from dwcp_ml.export.verify import open_bundle

    for model, bundle in approved_bundles(session.directory.parent, before=session.name):
        with contextlib.suppress(BundleRefused):
            if model == MODEL and open_bundle(bundle).manifest.form == form:
                return bundle
    return None


def shorter_training(session: Session, report: Reporter = ignore_event) -> Path:
    """Train a bandwidth predictor for a few epochs with another seed, and return its bundle.

    Raises
    ------
    DwcpError
        If it can't be trained.
    """
    options = session.options()
    short = Session(session.work / "demo" / f"{session.name}-short")
    bundle = short.models / MODEL / short.name
    if not (bundle / REPORT_NAMES[0]).exists():
        short.work.mkdir(parents=True, exist_ok=True)
        link(short.dataset, session.dataset.resolve())
        chosen = options.of(MODEL).model_dump(mode="json") | {"epochs": SHORT_EPOCHS}
        request = WorkerRequest(
            session=short.directory,
            model=MODEL,
            seed=options.seed + 1,
            formats=("onnx",),
            accept_leak=options.accept_leak,
            options=ModelOptions.model_validate(chosen),
        )
        job = Job(f"{MODEL}-short", request)
        failures = run_jobs([job], parallel=1, logs=session.logs, report=report)
        if failures:
            raise DwcpError(f"no model could be trained to roll out over: {failures[job.name]}")
    return bundle
