"""A rollout on this machine: real servers, a real Envoy, replayed telemetry."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.local_rollout.broken_bundles import break_bundle
from dwcp_ml.local_rollout.driver import drive, start_machine
from dwcp_ml.local_rollout.running import rollout_request
from dwcp_ml.local_rollout.servers import SERVE
from dwcp_ml.local_rollout.store import Store
from dwcp_ml.rollout.reason import Reason
from dwcp_ml.rollout.status import Phase
from dwcp_ml.rollout.verdict import Outcome
from tests.errors import about
from tests.serving.bundles import make_bundle

MODEL = "bandwidth_predictor"
BROKEN = Path(__file__).with_name("broken_server.py")
QUICK = {
    "steps": [
        {"traffic_percent": 20, "minimum_requests": 60, "dwell_seconds": 2},
        {"traffic_percent": 50, "minimum_requests": 60, "dwell_seconds": 2},
        {"traffic_percent": 100, "minimum_requests": 60, "dwell_seconds": 2},
    ],
    "watch_seconds": 3,
    "analysis": {
        "warm_up_seconds": 1,
        "unready_seconds": 30,
        "max_restarts": 2,
        "error_rate": {"margin": 0.1},
        "latency": {"margin": 0.3},
        "divergence": {"tolerance": 0.2},
        "ground_truth": {"margin": 0.1, "required": True},
    },
}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    place = tmp_path_factory.mktemp("rollout")
    bundles = [
        make_bundle(place / str(n), MODEL, f"2026010{n}-000000", reports=True) for n in (1, 2)
    ]
    return (*bundles, simulated(place / "data"))


def simulated(place):
    command = ["data", "simulate", "--set", "days=0.2", "--set", "nodes=4"]
    assert main([*command, "--output-dir", str(place)]) == 0
    return place / "telemetry.csv"


def create_store(material, place, settings=QUICK):
    stable, candidate, telemetry = material
    store = Store(place)
    store.create(
        rollout_request(
            stable, candidate, telemetry,
            requests_per_second=150.0, settings=settings, label_delay_seconds=1.0,
        )
    )  # fmt: skip
    return store


@pytest.mark.server
@pytest.mark.timeout(300)
def test_a_good_candidate_is_promoted_and_every_live_share_is_the_status(material, tmp_path):
    store = create_store(material, tmp_path / "state")
    history = []
    with start_machine(store, store.request()) as machine:
        end = drive(
            store, machine, limit_seconds=200,
            watcher=lambda status, observation: history.append((status, observation.live_percent)),
        )  # fmt: skip
        responses = machine.replay.responses.copy()
    assert end == "Promoted", store.status().cause
    assert {kind for _, kind in responses} == {"2xx"}, "no request may be lost"
    shares = [live for _, live in history]
    assert sorted(set(shares)) == [0, 20, 50, 100]
    assert shares == sorted(shares)
    for (before, _), (_, live) in itertools.pairwise(history):
        assert live == before.target_percent
    (verdict,) = [each for each in store.status().verdicts if each.test == "ground_truth"]
    assert verdict.outcome is Outcome.PASS
    assert verdict.samples > 20
    drift = [each.drift for each in store.reconciliations() if each.drift]
    assert {each.name for each in drift[-1]} >= {"feature:rtt_ms", "output:next_throughput_mbps"}


@pytest.mark.server
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "size", "reason", "test"),
    [
        ("errors", 0.1, Reason.TEST_FAILED, "error_rate"),
        ("slow", 0.02, Reason.TEST_FAILED, "latency"),
        ("crash", 3.0, Reason.CANDIDATE_CRASHED, ""),
    ],
)
def test_a_broken_candidate_is_rolled_back(material, tmp_path, fault, size, reason, test):
    store = create_store(material, tmp_path / "state")
    commands = {"stable": SERVE, "candidate": (sys.executable, str(BROKEN), fault, str(size))}
    with start_machine(store, store.request(), commands) as machine:
        end = drive(store, machine, limit_seconds=200)
        assert machine.envoy.read() == 0
    status = store.status()
    assert end == "RolledBack", status.cause
    assert (status.cause.reason, status.cause.test) == (reason, test)
    assert status.phase is Phase.ROLLED_BACK


@pytest.mark.server
@pytest.mark.timeout(300)
def test_a_server_with_another_contract_gets_no_traffic(material, tmp_path):
    store = create_store(material, tmp_path / "state")
    commands = {"candidate": (sys.executable, str(BROKEN), "contract", "0")}
    with start_machine(store, store.request(), commands) as machine:
        assert drive(store, machine, limit_seconds=6) == "Held"
        assert machine.envoy.read() == 0
    status = store.status()
    assert status.cause.reason is Reason.CONTRACT_DIFFERS
    assert status.exposed_requests == 0


@pytest.mark.server
@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", ["scale", "nan"])
def test_a_bundle_with_wrong_predictions_is_rolled_back(material, tmp_path, fault):
    stable, _, telemetry = material
    candidate = break_bundle(stable, tmp_path / MODEL / "broken", fault)
    store = create_store((stable, candidate, telemetry), tmp_path / "state")
    with start_machine(store, store.request()) as machine:
        assert drive(store, machine, limit_seconds=200) == "RolledBack", store.status().cause
        responses = machine.replay.responses.copy()
    assert "lost" not in {kind for _, kind in responses}


@pytest.mark.server
@pytest.mark.timeout(300)
def test_a_constant_is_found_without_pairs_and_labels(material, tmp_path):
    """As on a cluster: nothing but the counters of the real servers."""
    stable, _, telemetry = material
    candidate = break_bundle(stable, tmp_path / MODEL / "broken", "constant")
    analysis = {
        "warm_up_seconds": 1, "error_rate": {"margin": 0.2}, "latency": None, "divergence": None,
    }  # fmt: skip
    steps = [{"traffic_percent": 30, "minimum_requests": 5000}, {"traffic_percent": 100}]
    request = {**QUICK, "steps": steps, "analysis": analysis}
    store = create_store((stable, candidate, telemetry), tmp_path / "state", request)
    with start_machine(store, store.request()) as machine:
        assert drive(store, machine, limit_seconds=200) == "RolledBack", store.status().cause
        assert {kind for _, kind in machine.replay.responses} == {"2xx"}
    cause = store.status().cause
    assert (cause.reason, cause.test) == (Reason.TEST_FAILED, "prediction_distribution")


@pytest.fixture
def scratch():
    """A directory for what a killed controller leaves; short, for Envoy's socket."""
    with tempfile.TemporaryDirectory() as directory:
        yield directory


@pytest.mark.server
@pytest.mark.timeout(300)
def test_a_killed_controller_continues_from_its_stored_status(material, tmp_path, scratch):
    stable, candidate, telemetry = material
    (tmp_path / "spec.yaml").write_text(json.dumps(QUICK))
    state = tmp_path / "state"
    words = [
        "rollout", "run", "--stable", str(stable), "--candidate", str(candidate),
        "--telemetry", str(telemetry), "--state", str(state), "--spec", str(tmp_path / "spec.yaml"),
        "--requests-per-second", "150", "--label-delay-seconds", "1",
    ]  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "dwcp_ml.cli", *words], start_new_session=True,
        env={**os.environ, "TMPDIR": scratch},
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while not any(each.target_percent == 50 for each in Store(state).reconciliations()):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = Store(state).status()
    assert before.target_percent == 50
    done = subprocess.run(
        [sys.executable, "-m", "dwcp_ml.cli", "rollout", "resume", "--state", str(state)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Promoted" in done.stdout
    targets = [each.target_percent for each in Store(state).reconciliations()]
    assert targets == sorted(targets), "no step is repeated or skipped"
    assert set(targets) - {0} == {20, 50, 100}, "0 is the shadow step"
    record = json.loads((state / "timeline.json").read_text())
    assert list(record)[-1] == "outcome"
    assert record["outcome"] == "Promoted"
    page = (state / "timeline.html").read_text()
    assert "polyline" in page
    assert "http" not in page.replace("http-equiv", "")
    assert (state / "timeline.md").read_text().startswith("# Rollout")


def test_another_rollout_in_the_directory_is_not_overwritten(material, tmp_path):
    create_store(material, tmp_path / "state")
    with pytest.raises(UsageError, match="holds a rollout already"):
        create_store(material, tmp_path / "state")


def test_the_live_bundle_is_no_candidate(material, tmp_path):
    stable, _, telemetry = material
    with pytest.raises(UsageError, match="live bundle already"):
        rollout_request(stable, stable, telemetry, requests_per_second=1.0)


def test_a_ground_truth_test_without_data_is_rejected(tmp_path):
    bundles = [make_bundle(tmp_path / n, "reliability_detector", n) for n in ("1", "2")]
    telemetry = simulated(tmp_path)
    settings = {"analysis": {"ground_truth": {}}}
    with pytest.raises(UsageError, match=r"has no data.*label missing"):
        rollout_request(*bundles, telemetry, requests_per_second=1.0, settings=settings)
    incidents = telemetry.with_name("incidents.json")
    request = rollout_request(
        *bundles, telemetry, requests_per_second=1.0, settings=settings, incidents=incidents
    )
    assert request.run.mirror_percent > 0, "both arms must get the same requests"


def test_two_models_are_no_rollout(material, tmp_path):
    stable, _, telemetry = material
    other = make_bundle(tmp_path, "compression_selector", "2")
    with pytest.raises(UsageError, match="needs two of the same"):
        rollout_request(stable, other, telemetry, requests_per_second=1.0)


def test_two_contracts_are_no_rollout(material, tmp_path):
    stable, _, telemetry = material
    other = make_bundle(tmp_path, MODEL, "3")
    manifest = other / MANIFEST_NAME
    manifest.write_text(manifest.read_text().replace("Mbit/s", "bit/s"))
    with pytest.raises(UsageError, check=about(ErrorCode.CONTRACT, "3")):
        rollout_request(stable, other, telemetry, requests_per_second=1.0)


def test_a_changed_bundle_is_rejected(material, tmp_path):
    _, candidate, telemetry = material
    bundle = make_bundle(tmp_path, MODEL, "3")
    (bundle / "model.onnx").write_bytes(b"changed")
    with pytest.raises(BundleRefused, match="changed"):
        rollout_request(bundle, candidate, telemetry, requests_per_second=1.0)


def test_a_cut_off_reconciliation_is_left_out(material, tmp_path):
    store = create_store(material, tmp_path / "state")
    (store.directory / "reconciliations.jsonl").write_text('{"at": 1.0, "pha')
    assert list(store.reconciliations()) == []
