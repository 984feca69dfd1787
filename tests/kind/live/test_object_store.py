"""From a store to a served model: no bundle is copied by hand, and none is on a volume."""

import base64

import boto3
import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.simulate import SimulatorSettings, simulate
from tests.kind.live.cluster import SPACE
from tests.kind.live.run import VERSION, InPods

pytestmark = [pytest.mark.kind, pytest.mark.timeout(1800)]

MODEL = MODELS["reliability_detector"]
"""The forest: it meets its targets on two days of telemetry."""

_VERSION = f"{VERSION}-s3"
_SECRET = "object-store"
_PORT = 30900
_READY = "300s"


@pytest.fixture
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
