"""The check stage: the bundles are served, and asked the way their users will ask them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.checks import ApiChecks, Check
from dwcp_ml.contract.errors import BundleRefused, DwcpError
from dwcp_ml.rollout.spec import any_rollout
from dwcp_ml.training_run.go_client_check import GoClient, GoMissing, find_client
from dwcp_ml.training_run.model_server import bundles_together, running_server
from dwcp_ml.training_run.options import RunOptions
from dwcp_ml.training_run.progress import ProgressTask, Reporter, ignore_event
from dwcp_ml.training_run.rollout_readiness import TrafficPlan, check_readiness

RECORD_NAME = "api_checks.json"

NO_BUNDLE = "no model was exported, so there was nothing to serve"
TURNED_OFF = "the check of the live endpoint was turned off"


def check_run(
    bundles: Mapping[str, Path],
    options: RunOptions,
    *,
    report: Reporter = ignore_event,
    log: Path | None = None,
) -> ApiChecks:
    """Check what a run exported: its interfaces, and whether a rollout of it could be decided.

    Parameters
    ----------
    bundles
        Full model name -> ``<model>/<version>/``; those without a sealed bundle are left out.
    options
        The run's: whether to check at all, what is live, the traffic to expect.
    log
        Where the servers' log goes.
    """
    if not options.check_api:
        return ApiChecks.not_made(TURNED_OFF)
    found = check_bundles(bundles, report=report, log=log)
    sealed = _sealed(bundles)
    if found.failed or not sealed:
        return found  # what does not answer is not rolled out
    readiness = check_readiness(
        sealed,
        any_rollout(),
        TrafficPlan(options.requests_per_second),
        stables={
            name: Path(uri) for name, uri in options.stable_uris().items() if Path(uri).is_dir()
        },
        report=report,
        log=log,
    )
    return found.replace(readiness=readiness)


def check_bundles(
    bundles: Mapping[str, Path], *, report: Reporter = ignore_event, log: Path | None = None
) -> ApiChecks:
    """Serve bundles on this machine, and check the endpoint and the Go client against them.

    Parameters
    ----------
    bundles
        Full model name -> ``<model>/<version>/``; those without a sealed bundle are left out.
    log
        Where the server's log goes.
    """
    sealed = _sealed(bundles)
    with ProgressTask("check api", report) as task:
        if not sealed:
            task.finish("nothing to serve")
            return ApiChecks.not_made(NO_BUNDLE)
        try:
            with bundles_together(sealed) as together:
                found = _served(together, task, log)
        except BundleRefused as error:
            refused = Check(name="server starts", passed=False, detail=str(error))
            found = _judged([refused], None, {})
        except DwcpError as error:
            failed = Check(name="server starts", passed=False, detail=str(error))
            found = _judged([failed], None, {})
        bad = len(found.failed)
        task.finish(f"{len(found.checks)} checks, {bad or 'none'} failed")
    return found


def _sealed(bundles: Mapping[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in bundles.items() if (path / MANIFEST_NAME).is_file()}


def check_address(models_dir: Path, http: str, grpc: str | None, task: ProgressTask) -> ApiChecks:
    """Check a server that runs, given the bundles that it should be serving.

    Raises
    ------
    BundleRefused, UsageError
        If the bundles themselves can't be opened.
    """
    from dwcp_ml.serving.client import GrpcClient, HttpClient
    from dwcp_ml.serving.contract_check import check_endpoint
    from dwcp_ml.serving.repository import load_models

    models = load_models(models_dir)
    task.advance(0.2, "the endpoint against the contract")
    with HttpClient(http) as http_client:
        if grpc is None:
            checks = list(check_endpoint(models, http_client, None))
        else:
            with GrpcClient(grpc) as grpc_client:
                checks = list(check_endpoint(models, http_client, grpc_client))
    unchecked: dict[str, str] = {}
    frozen = None
    try:
        task.advance(0.4, "the Go client")
        client = find_client()
    except GoMissing as error:
        unchecked = dict.fromkeys(("integration_tests_passed", "go_api_compatibility"), f"{error}.")
    else:
        frozen = client.frozen_interface()
        task.advance(0.7, "the Go integration tests")
        if grpc is None:
            unchecked["integration_tests_passed"] = "the server offers no gRPC address."
        else:
            checks += _go_tests(client, models, http, grpc)
    return _judged(checks, frozen, unchecked)


def _served(directory: Path, task: ProgressTask, log: Path | None) -> ApiChecks:
    task.advance(0.0, "starting the model server")
    with running_server(directory, log=log) as server:
        return check_address(directory, server.http, server.grpc, task)


def _go_tests(client: GoClient, models: Iterable[str], http: str, grpc: str) -> list[Check]:
    return list(client.integration_tests(list(models), http, grpc))


def _judged(checks: list[Check], frozen: Check | None, unchecked: dict[str, str]) -> ApiChecks:
    """Return the record: a failed check is false whatever could not be checked beside it."""
    failed = any(not check.passed for check in checks)
    passed = None if "integration_tests_passed" in unchecked and not failed else not failed
    unchecked = {
        name: why
        for name, why in unchecked.items()
        if not (name == "integration_tests_passed" and failed)
    }
    if frozen is None:
        unchecked.setdefault("go_api_compatibility", "the Go client was not reached.")
    return ApiChecks(
        integration_tests_passed=passed,
        go_api_compatibility=None if frozen is None else frozen.passed,
        unchecked=unchecked,
        checks=(*checks, *([frozen] if frozen else [])),
    )
