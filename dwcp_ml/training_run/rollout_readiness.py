"""Readiness for an A/B test: contract, servers and traffic are checked before a rollout starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dwcp_ml.contract.checks import Check, Readiness, StepTime
from dwcp_ml.contract.errors import BundleRefused, DwcpError
from dwcp_ml.contract.models import model_spec
from dwcp_ml.training_run.model_server import bundles_together, running_server
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event

if TYPE_CHECKING:
    from dwcp_ml.export.verify import Bundle
    from dwcp_ml.rollout.spec import RolloutSpec

PROBE_REQUESTS: Final = 20
"""Requests sent to a server before its metrics are checked."""

DEFAULT_REQUESTS_PER_SECOND: Final = 100.0
DEFAULT_STEP_HOURS: Final = 2.0


@dataclass(frozen=True)
class TrafficPlan:
    """The traffic and the time that a rollout gets in production.

    Parameters
    ----------
    requests_per_second
        Of candidate and stable together.
    """

    requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND
    step_seconds: float = 3600.0 * DEFAULT_STEP_HOURS


def check_readiness(
    candidates: Mapping[str, Path],
    spec: RolloutSpec,
    traffic: TrafficPlan,
    *,
    stables: Mapping[str, Path] | None = None,
    report: Reporter = ignore_event,
    log: Path | None = None,
) -> Readiness:
    """Return whether a rollout of each bundle could be decided.

    Parameters
    ----------
    candidates
        Full model name -> ``<model>/<version>/``.
    spec
        Steps and analysis; its model and revisions do not matter.
    stables
        The stable bundles on this machine; a candidate without one is compared with the contract
        of its model.

    Raises
    ------
    BundleRefused
        If a candidate's bundle is invalid.
    """
    with ProgressTask("rollout ready", report) as task:
        task.advance(0.0, "contracts")
        opened = _opened(candidates)
        checks = [_contract(bundle, (stables or {}).get(name)) for name, bundle in opened.items()]
        task.advance(0.2, "metrics of the server")
        checks += _exports(opened, spec, log)
        task.advance(0.6, "simulated rollouts")
        steps, enough = _decidable(spec, traffic)
        readiness = Readiness(
            ready=all(check.passed for check in (*checks, enough)),
            requests_per_second=traffic.requests_per_second,
            step_seconds=traffic.step_seconds,
            checks=(*checks, enough),
            steps=steps,
        )
        task.finish("ready" if readiness.ready else f"not ready: {readiness.failed[0].detail}")
    return readiness


def _opened(candidates: Mapping[str, Path]) -> dict[str, Bundle]:
    from dwcp_ml.export.verify import open_bundle

    return {name: open_bundle(path) for name, path in candidates.items()}


def _contract(candidate: Bundle, stable: Path | None) -> Check:
    """Compare the interface: names, shapes, types, units, ranges and their order."""
    from dwcp_ml.contract.bundle import interface, signature
    from dwcp_ml.export.verify import open_bundle

    manifest = candidate.manifest
    found = interface(manifest)
    of_model = signature(model_spec(manifest.name), manifest.form)
    owner, expected = "its model's", interface(manifest.replace(**of_model))
    detail = ""
    if stable is not None:
        owner = "the stable's"
        try:
            expected = interface(open_bundle(stable).manifest)
        except BundleRefused as error:
            detail = str(error)
    differing = [name for name in expected if found[name] != expected[name]]
    if differing and not detail:
        detail = f"{', '.join(differing)} of {candidate.path} differ from {owner} contract."
    return Check(name=f"{manifest.name}: contract equals {owner}", passed=not detail, detail=detail)


def _exports(opened: Mapping[str, Bundle], spec: RolloutSpec, log: Path | None) -> list[Check]:
    """Serve the candidates, send requests to each, and check that the tests get their metrics."""
    paths = {name: bundle.path for name, bundle in opened.items()}
    with tempfile.TemporaryDirectory(prefix="dwcp-ready-") as scratch:
        predictions = Path(scratch) / "predictions"
        options = ("--log-predictions", str(predictions))
        try:
            with (
                bundles_together(paths) as together,
                running_server(together, options=options, log=log) as server,
            ):
                metrics = [
                    Check(name=f"{name}: metrics for the tests", passed=not fault, detail=fault)
                    for name, bundle in opened.items()
                    for fault in [_metrics_fault(bundle, server.http)]
                ]
            logged = _logged(opened, spec, predictions)
        except DwcpError as error:
            return [Check(name="the server starts", passed=False, detail=str(error))]
        return [*metrics, *logged]


def _metrics_fault(bundle: Bundle, address: str) -> str:
    """Return which metric is missing after some requests; empty if none is."""
    import numpy as np

    from dwcp_ml.export.probes import probe_inputs
    from dwcp_ml.metrics_sources.samples import Expected
    from dwcp_ml.metrics_sources.scrape import MetricsPages
    from dwcp_ml.serving.client import HttpClient

    spec = model_spec(bundle.manifest.name)
    expected = Expected(spec.name, bundle.manifest.version, bundle.digest)
    pages = MetricsPages([address], expected)
    before = pages.read()
    rows = probe_inputs(spec, np.zeros((0, *spec.input.shape), np.float32), n=PROBE_REQUESTS)
    with HttpClient(address) as client:
        for row in rows:
            client.predict(spec.name, row[np.newaxis])
    after = pages.read()
    fault = before.error or after.error
    if fault:
        return fault
    (first,), (last,) = before.replicas, after.replicas
    if last.requests - first.requests != PROBE_REQUESTS:
        return f"{last.requests - first.requests} of {PROBE_REQUESTS} requests were counted."
    timed = 0 if last.latency is None else last.latency.counts[-1]
    if timed < PROBE_REQUESTS:
        return f"The latency histogram has {timed} of {last.requests} requests."
    return "" if after.sketches else "There is no distribution of inputs and predictions for drift."


def _logged(opened: Mapping[str, Bundle], spec: RolloutSpec, log: Path) -> Iterator[Check]:
    """Yield whether requests can be paired, if a test needs pairs."""
    from dwcp_ml.prediction_log.log import read_log

    if spec.analysis.divergence is None and spec.analysis.ground_truth is None:
        return
    logged: dict[str, set[str]] = {name: set() for name in opened}
    for record in read_log(log):
        logged[record.model].add(record.request_id)
    for name, ids in logged.items():
        complete = len(ids) == PROBE_REQUESTS
        fault = "" if complete else f"{len(ids)} of {PROBE_REQUESTS} requests were logged."
        yield Check(name=f"{name}: predictions can be paired", passed=not fault, detail=fault)


def _decidable(spec: RolloutSpec, traffic: TrafficPlan) -> tuple[tuple[StepTime, ...], Check]:
    """Simulate rollouts of a good candidate; check that every step is decided in time."""
    from dwcp_ml.rollout import simulated_environment
    from dwcp_ml.rollout.planning import ROLLOUTS, step_times

    rate = traffic.requests_per_second
    labelled = 0.0 if spec.analysis.ground_truth is None else _label_share(rate)
    simulated = simulated_environment.Traffic(
        requests_per_second=traffic.requests_per_second,
        divergence=None if spec.analysis.divergence is None else 0.0,
        labelled_share=labelled,
    )
    steps = step_times(spec, simulated, traffic.step_seconds)
    late = [step for step in steps if step.p90_seconds is None]
    detail = ""
    if late:
        detail = (
            f"At {traffic.requests_per_second:g} requests/s the step of "
            f"{late[0].traffic_percent} % is not decided within {traffic.step_seconds / 3600:g} h "
            f"in nine of ten simulated rollouts: use more traffic, larger first steps, wider "
            f"margins or more time."
        )
    name = f"traffic decides each step (of {ROLLOUTS} simulated rollouts)"
    return steps, Check(name=name, passed=not late, detail=detail)


def _label_share(requests_per_second: float) -> float:
    """Return the share of predictions that get a label: one per second, as labels are rare."""
    return min(1.0, 1.0 / requests_per_second)
