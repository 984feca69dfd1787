"""From a store to a served model: no bundle is copied by hand, and none is on a volume."""

import base64
import json
from datetime import UTC, datetime, timedelta

import boto3
import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import INFERENCE_SERVICE
from dwcp_ml.simulate import SimulatorSettings, simulate
from tests.cluster.processes import eventually
from tests.kind.bundles import SPEC
from tests.kind.live.cluster import SPACE
from tests.kind.live.load import Traffic
from tests.kind.live.retraining import (
    ALERTMANAGER,
    RunInPods,
    install,
    notify,
    path_of,
    rollout_status,
    write_by_date,
)
from tests.kind.live.run import VERSION, InPods

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]

MODEL = MODELS["reliability_detector"]
"""The forest: it meets its targets on two days of telemetry."""

_VERSION = f"{VERSION}-s3"
_SECRET = "object-store"
_PORT = 30900
_READY = "300s"


@pytest.fixture(scope="module")
def client(node):
    """A client of the store that is not ours."""
    secret = node.rest.get(f"/api/v1/namespaces/{SPACE}/secrets/{_SECRET}")["data"]
    values = {name: base64.b64decode(value).decode() for name, value in secret.items()}
    (machine,) = node.rest.get("/api/v1/nodes")["items"]
    addresses = {one["type"]: one["address"] for one in machine["status"]["addresses"]}
    return boto3.client(
        "s3", endpoint_url=f"http://{addresses['InternalIP']}:{_PORT}",
        aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        region_name=values["AWS_DEFAULT_REGION"],
    )  # fmt: skip


def test_a_pipeline_from_s3_to_s3_is_served_from_there(node, client, tmp_path):
    simulate(SimulatorSettings(days=2, nodes=6), tmp_path)
    for bucket in ("telemetry", "models"):
        client.create_bucket(Bucket=bucket)
    for name in ("telemetry.csv", "incidents.json"):
        client.upload_file(str(tmp_path / name), "telemetry", name)
    # What the step train has published of this model is on a volume.
    node.kubectl("delete", f"modelrollout/{MODEL.kubernetes_name}", "-n", SPACE,
                 f"inferenceservice/{MODEL.kubernetes_name}", "--ignore-not-found")  # fmt: skip
    run = InPods(
        node, node.volumes / "run-on-s3", data="s3://telemetry/telemetry.csv",
        incidents="s3://telemetry/incidents.json", models=(MODEL.name,), prefix="s3://models",
        version=_VERSION, secret=_SECRET,
    )  # fmt: skip
    assert run.train() == "APPROVED"
    run.publish_candidates()

    name, address = MODEL.kubernetes_name, f"s3://models/{MODEL.name}/{_VERSION}"
    node.kubectl("wait", f"modelrollout/{name}", "-n", SPACE, f"--timeout={_READY}",
                 "--for=jsonpath={.status.phase}=Promoted")  # fmt: skip
    service = node.rest.get(
        f"/apis/serving.kserve.io/v1beta1/namespaces/{SPACE}/inferenceservices/{name}"
    )
    assert service["spec"]["predictor"]["model"]["storageUri"] == address
    (pod,) = node.pods(f"serving.kserve.io/inferenceservice={name}")
    (loaded,) = pod["spec"]["initContainers"]
    assert loaded["args"] == [address, "/mnt/models"]
    assert all(one["ready"] for one in pod["status"]["containerStatuses"])


QUICK = {
    "shadow": {"minimumPairs": 200},
    "steps": [
        {"trafficPercent": 25, "minimumRequests": 200, "dwellSeconds": 8},
        {"trafficPercent": 100, "minimumRequests": 300, "dwellSeconds": 8},
    ],
    "watchSeconds": 5,
    **SPEC,
}
"""Steps of seconds, and margins for the cores of one machine."""


def test_an_alert_leads_to_a_model_of_the_newest_telemetry(node, client, tmp_path):
    """Traffic drifts, an alert asks for a run, the gate compares the result with the champion, and
    the rollout, with its shadow step, makes it the stable.
    """
    name = MODEL.kubernetes_name
    stable = rollout_status(node, name)["candidate"]["version"]
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    drifted = SimulatorSettings(
        days=2, nodes=6, seed=43, start=midnight - timedelta(days=3),
        diurnal_amplitude=2.2, congestion_per_link_day=6, gauge_noise=1.3,
    )  # fmt: skip
    simulate(drifted, tmp_path / "drifted")
    for file in write_by_date(tmp_path / "drifted/telemetry.csv", tmp_path / "days"):
        client.upload_file(str(file), "telemetry", str(file.relative_to(tmp_path)))
    # Outside the window: it must not even be read.
    client.put_object(Bucket="telemetry", Key="days/date=2025-01-01/part-0.parquet", Body=b"none")
    incidents = str(tmp_path / "drifted/incidents.json")
    client.upload_file(incidents, "telemetry", "days-incidents.json")
    node.kubectl("patch", "modelrollout", name, "-n", SPACE, "--type=merge",
                 "-p", json.dumps({"spec": QUICK}))  # fmt: skip
    (tmp_path / "overlay").mkdir()
    install(node, tmp_path / "overlay", {
        "name": "nightly", "windowDays": 5, "delayMinutes": 0,
        "template": {"spec": {
            "data": {"uri": "s3://telemetry/days/",
                     "incidentsUri": "s3://telemetry/days-incidents.json"},
            "models": [MODEL.name], "storagePrefix": "s3://models",
        }},
    })  # fmt: skip

    with node.namespace("stranger") as space:
        assert notify(node, space, ALERTMANAGER) == {"unreachable": True}
    monitoring = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "monitoring"}}
    node.apply(monitoring)
    decision = notify(node, "monitoring", ALERTMANAGER)["decision"]
    assert (decision["skip"], decision["run"]) == (None, "nightly-1")
    assert notify(node, "monitoring", ALERTMANAGER)["decision"]["skip"] == "RunUnderWay"

    host = node.rest.get(path_of(INFERENCE_SERVICE, name))["status"]["url"].removeprefix("http://")
    services, replayed = node.service_of_pods.service, tmp_path / "drifted/telemetry.csv"
    with Traffic(tmp_path, services, host, MODEL, replayed) as traffic:
        run = RunInPods(node, "nightly-1", node.volumes / "run-nightly-1", _SECRET)
        verdict = run.steps.train()
        assert verdict == "APPROVED", run.steps.steps.log[-2000:]
        run.steps.publish_candidates()
        run.end(verdict)

        def promoted():
            status = rollout_status(node, name)
            assert status["phase"] != "RolledBack", status
            is_run = status["candidate"]["version"] == run.version
            return status if is_run and status["phase"] == "Promoted" else None

        status = eventually(promoted, 400.0, every=1.0, alive=node.check)
        assert {outcome for _, outcome in traffic.responses()} == {"2xx"}
    (compared,) = [one for one in status["verdicts"] if one["test"] == "divergence"]
    assert compared["samples"] >= QUICK["shadow"]["minimumPairs"]
    key = f"{MODEL.name}/{run.version}/manifest.json"
    provenance = json.loads(client.get_object(Bucket="models", Key=key)["Body"].read())[
        "provenance"
    ]
    assert provenance["champion"]["version"] == provenance["lineage"]["parent_version"] == stable
    assert provenance["lineage"]["trigger"] == "alert/DwcpFeatureDrift"
    first = datetime.fromisoformat(provenance["lineage"]["data_first"])
    assert first.date() == drifted.start.date()
    again = notify(node, "monitoring", ALERTMANAGER)["decision"]
    assert (again["skip"], again["run"]) == ("CoolingDown", "nightly-1")
    node.kubectl("delete", "namespace", "monitoring")
