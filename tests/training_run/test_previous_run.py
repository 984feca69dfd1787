"""The gate's canary on one machine: the previous approved bundle is the stable one."""

import pytest
import yaml

from dwcp_ml.contract.bundle import Manifest
from dwcp_ml.contract.models import MODELS
from dwcp_ml.contract.records import DataReport, SessionReport
from dwcp_ml.evaluation import gate_session
from dwcp_ml.files import write_text
from dwcp_ml.simulate import SimulatorSettings, simulate
from dwcp_ml.training_run.local_pipeline import run_pipeline
from dwcp_ml.training_run.options import run_options
from dwcp_ml.training_run.orchestrator import run_session
from dwcp_ml.training_run.previous_run import with_previous_bundles
from dwcp_ml.training_run.session import Session, new_session
from tests.serving.bundles import make_bundle, report

BANDWIDTH, LATENCY = "bandwidth_predictor", "consensus_latency"


def past_run(root, name, verdicts):
    """Write what an ended run leaves: a report, and the bundles of the approved models."""
    reports = {}
    for model, verdict in verdicts.items():
        reports[model] = report(MODELS[model], name)
        if verdict == "APPROVED":
            make_bundle(root / name / "models", model, name)
    data = DataReport(
        path="t.csv", md5="0" * 32, size_bytes=1, rows=1, rows_quarantined=0, columns=(), links=1,
        source="simulated",
    )  # fmt: skip
    written = gate_session(name, list(reports.values()), data)
    judged = {
        model: written.models[model].replace(verdict=verdict) for model, verdict in verdicts.items()
    }
    write_text(root / name / "report.json", written.replace(models=judged).to_json())
    return Session(root / name)


def stable(root, name="20260105-000000", **options):
    """Return what a run of this name takes for live."""
    (root / name).mkdir(parents=True, exist_ok=True)
    given = run_options(models=f"{BANDWIDTH},{LATENCY}", **options)
    return with_previous_bundles(Session(root / name), given).stable_uris()


def test_the_first_run_has_no_stable(tmp_path):
    assert stable(tmp_path) == {}


def test_of_each_model_the_newest_approved_bundle_is_live(tmp_path):
    past_run(tmp_path, "20260101-000000", {BANDWIDTH: "APPROVED", LATENCY: "APPROVED"})
    past_run(tmp_path, "20260102-000000", {BANDWIDTH: "APPROVED"})
    past_run(tmp_path, "20260103-000000", {BANDWIDTH: "REJECTED"}).publish()
    past_run(tmp_path, "20260109-000000", {BANDWIDTH: "APPROVED"})  # after it
    (tmp_path / "20260104-000000").mkdir()  # interrupted
    write_text(tmp_path / "20260104-000001/report.json", "{}")
    assert stable(tmp_path) == {
        BANDWIDTH: f"pvc://dwcp-models/{BANDWIDTH}/20260102-000000",
        LATENCY: f"pvc://dwcp-models/{LATENCY}/20260101-000000",
    }
    assert stable(tmp_path, storage_prefix="s3://m")[LATENCY] == f"s3://m/{LATENCY}/20260101-000000"


def test_an_approved_bundle_that_is_gone_is_not_live(tmp_path):
    run = past_run(tmp_path, "20260101-000000", {BANDWIDTH: "APPROVED"})
    (run.models / BANDWIDTH / run.name / "manifest.json").unlink()
    assert stable(tmp_path) == {}


def test_what_the_user_says_is_not_changed(tmp_path):
    past_run(tmp_path, "20260101-000000", {BANDWIDTH: "APPROVED"})
    assert stable(tmp_path, stable_uri="none") == {}
    assert stable(tmp_path, stable_uri=f"{LATENCY}=s3://m/v1") == {LATENCY: "s3://m/v1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """As little telemetry as the forest meets its targets on."""
    directory = tmp_path_factory.mktemp("data")
    simulate(SimulatorSettings(days=2, nodes=6), directory)
    return directory


def trained(root, addresses, run):
    """Train the forest alone; return its run, and the spec of its InferenceService."""
    options = run_options(
        data_path=addresses[0], incidents_path=addresses[1], models="reliability",
        export_formats="onnx", check_api=False, trigger="nightly",
    )  # fmt: skip
    session = new_session(root, options)
    (report,) = run(session, options).models.values()
    assert report.verdict == "APPROVED", report.reasons
    path = session.directory / "manifests/reliability_detector/inferenceservice.yaml"
    return session, yaml.safe_load(path.read_text())["spec"]


@pytest.mark.pipeline
@pytest.mark.parametrize("runner", ["kubeflow", "orchestrator"])
def test_the_second_run_writes_a_canary_of_the_first(data, tmp_path, runner, request):
    """Kubeflow's runner reads the telemetry from a store, in a process of its own."""
    paths = [data / name for name in ("telemetry.csv", "incidents.json")]
    addresses = [str(path) for path in paths]
    if runner == "kubeflow":
        bucket = request.getfixturevalue("bucket")
        addresses = [bucket.put(path.name, path.read_bytes()) for path in paths]

    def run(session, options):
        if runner == "kubeflow":
            return run_pipeline(session, options)
        return run_session(session, options, parallel=1)

    first, spec = trained(tmp_path / "runs", addresses, run)
    assert DataReport.read(first.dataset / "validation.json").path == addresses[0]
    assert "canary" not in spec
    second, spec = trained(tmp_path / "runs", addresses, run)
    assert second.name != first.name
    home = "pvc://dwcp-models/reliability_detector"
    assert spec["predictor"]["model"]["storageUri"] == f"{home}/{first.name}"
    (canary,) = spec["canary"]
    assert canary["trafficPercent"] == 1
    assert canary["predictor"]["model"]["storageUri"] == f"{home}/{second.name}"
    (report,) = SessionReport.read(second.directory / "report.json").models.values()
    champion = report.evaluation.champion
    assert (champion.version, champion.source.named) == (first.name, False)
    (comparison,) = (e for e in report.evaluation.comparisons if e.kind == "champion")
    assert comparison.improvement == 0.0, "the same data and seed give the same model"
    manifest = Manifest.read(second.models / report.model_name / second.name / "manifest.json")
    assert manifest.provenance.champion == champion.record
    assert manifest.provenance.lineage.trigger == "nightly"
