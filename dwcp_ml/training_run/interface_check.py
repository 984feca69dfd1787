"""The check step: serves the bundles and sends them the requests that their users will send."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.checks import ApiChecks, Check
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.rollout.spec import any_rollout
from dwcp_ml.training_run.go_client_check import GoMissing, find_client
from dwcp_ml.training_run.model_server import bundles_together, running_server
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event
from dwcp_ml.training_run.rollout_readiness import TrafficPlan, check_readiness

RECORD_NAME = "api_checks.json"

NO_BUNDLE = "No model was exported, so there was nothing to serve"
TURNED_OFF = "The check of the live endpoint was turned off"


def check_run(
    bundles: Mapping[str, Path],
    options: RunOptions,
    *,
    report: Reporter = ignore_event,
    log: Path | None = None,
) -> ApiChecks:
    """Check the bundles of a run: their interfaces, and whether a rollout could be decided.

    Parameters
    ----------
    bundles
        Full model name -> ``<model>/<version>/``; those that are not finalized are left out.
    options
        Of the run: whether to check, the stable bundles, the expected traffic.
    """
    if not options.check_api:
        return ApiChecks.not_run(TURNED_OFF)
    checks = check_bundles(bundles, report=report, log=log)
    finalized = _finalized(bundles)
    if checks.failed or not finalized:
        return checks
    readiness = check_readiness(
        finalized,
        any_rollout(),
        TrafficPlan(options.requests_per_second),
        stables={
            name: Path(uri) for name, uri in options.stable_uris().items() if Path(uri).is_dir()
        },
        report=report,
        log=log,
    )
    return checks.replace(readiness=readiness)


def check_bundles(
    bundles: Mapping[str, Path], *, report: Reporter = ignore_event, log: Path | None = None
) -> ApiChecks:
    """Serve bundles on this machine, and check the endpoint and the Go client.

    Parameters
    ----------
    bundles
        Full model name -> ``<model>/<version>/``; those that are not finalized are left out.
    """
    finalized = _finalized(bundles)
    with ProgressTask("check api", report) as task:
        if not finalized:
            task.finish("nothing to serve")
            return ApiChecks.not_run(NO_BUNDLE)
        try:
            with bundles_together(finalized) as together:
                checks = _check_served(together, task, log)
        except DwcpError as error:
            failed = Check(name="server starts", passed=False, detail=str(error))
            checks = _result([failed], None, {})
        failures = len(checks.failed)
        task.finish(f"{len(checks.checks)} checks, {failures or 'none'} failed")
    return checks


def _finalized(bundles: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in bundles.items() if (path / MANIFEST_NAME).is_file()}


def check_address(models_dir: Path, http: str, grpc: str | None, task: ProgressTask) -> ApiChecks:
    """Check a running server, given the bundles that it should serve.

    Raises
    ------
    BundleRefused, UsageError
        If the bundles themselves can't be opened.
    """
    from dwcp_ml.serving.client import HttpClient
    from dwcp_ml.serving.contract_check import check_endpoint
    from dwcp_ml.serving.grpc_client import GrpcClient
    from dwcp_ml.serving.repository import load_models

    models = load_models(models_dir)
    task.advance(0.2, "the endpoint against the contract")
    with HttpClient(http) as client, GrpcClient(grpc) if grpc else nullcontext() as grpc_client:
        checks = list(check_endpoint(models, client, grpc_client))
    unchecked: dict[str, str] = {}
    frozen = None
    try:
        task.advance(0.4, "the Go client")
        go = find_client()
    except GoMissing as error:
        unchecked = dict.fromkeys(("integration_tests_passed", "go_api_compatibility"), f"{error}.")
    else:
        frozen = go.frozen_interface()
        task.advance(0.7, "the Go integration tests")
        if grpc is None:
            unchecked["integration_tests_passed"] = "The server has no gRPC address."
        else:
            checks += go.integration_tests(list(models), http, grpc)
    return _result(checks, frozen, unchecked)


def _check_served(directory: Path, task: ProgressTask, log: Path | None) -> ApiChecks:
    task.advance(0.0, "starting the model server")
    with running_server(directory, log=log) as server:
        return check_address(directory, server.http, server.grpc, task)


def _result(checks: list[Check], frozen: Check | None, unchecked: dict[str, str]) -> ApiChecks:
    """Return the record: one failed check is a failure, whatever could not be checked."""
    failed = any(not check.passed for check in checks)
    passed = None if "integration_tests_passed" in unchecked and not failed else not failed
    unchecked = {
        name: why
        for name, why in unchecked.items()
        if not (name == "integration_tests_passed" and failed)
    }
    if frozen is None:
        unchecked.setdefault("go_api_compatibility", "The Go client was not reached.")
    return ApiChecks(
        integration_tests_passed=passed,
        go_api_compatibility=None if frozen is None else frozen.passed,
        unchecked=unchecked,
        checks=(*checks, *([frozen] if frozen else [])),
    )
