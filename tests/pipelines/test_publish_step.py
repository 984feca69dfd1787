"""The task publish-candidate as Kubeflow runs it: real bundles, a fake of S3, an API in memory."""

import re
from types import SimpleNamespace

import pytest
import yaml

from components.publish_candidate import publish_candidate
from dwcp_ml.bundle_store import pull
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.export.verify import bundle_digest
from dwcp_ml.kube import client
from dwcp_ml.kube.api import MODEL_ROLLOUT
from tests.kube.publishing import NAMESPACE, written
from tests.operator.memory_api import MemoryApi
from tests.serving.bundles import make_bundle

pytestmark = pytest.mark.slow

NAME = "bandwidth_predictor"


class Task:
    """One run's outputs, and the task on them.

    Parameters
    ----------
    names
        The models that the gate approved.
    """

    def __init__(self, root, prefix, api, version, names=(NAME,)):
        self.root, self.prefix, self.version = root / version, prefix, version
        self.bundles, self.api = {}, api
        for name in names:
            bundle = make_bundle(self.root / f"export-{name}", name, version)
            self.bundles[name] = SimpleNamespace(path=str(self.root / f"export-{name}"))
            written(
                self.root / "gate", name, version=version, digest=bundle_digest(bundle),
                prefix=prefix,
            )  # fmt: skip

    def __call__(self):
        publish_candidate.python_func(
            manifests=SimpleNamespace(path=str(self.root / "gate")),
            published=SimpleNamespace(path=str(self.root / "published")),
            verdict="APPROVED", version=self.version, rollout_namespace=NAMESPACE,
            storage_prefix=self.prefix, **self.bundles,
        )  # fmt: skip

    def candidate(self, name="bandwidth-predictor"):
        found = self.api.aside().get(MODEL_ROLLOUT, NAMESPACE, name)
        return None if found is None else found["spec"]["candidate"]


@pytest.fixture
def api(monkeypatch):
    api = MemoryApi()
    monkeypatch.setattr(client, "connect", lambda **options: api)
    return api


@pytest.fixture
def task(tmp_path, bucket, api):
    return lambda version, *names: Task(
        tmp_path, bucket.address("models"), api, version, names or (NAME,)
    )


def test_each_bundle_is_where_its_candidate_says(task, tmp_path):
    run = task("v1", *MODELS)
    run()
    run()
    for spec in MODELS.values():
        candidate = run.candidate(spec.kubernetes_name)
        back = pull(
            candidate["storageUri"], tmp_path / "served",
            digest=candidate["digest"].removeprefix("sha256:"),
        )  # fmt: skip
        assert back.parts[-2:] == (spec.name, "v1")


def test_another_bundle_at_the_address_is_not_overwritten_and_not_named(task, bucket):
    key = f"models/{NAME}/v1/model.onnx"
    bucket.put(key, b"of another run")
    run = task("v1", NAME, "consensus_latency")
    with pytest.raises(DwcpError, match=f"^{NAME} was not published"):
        run()
    assert bucket.get(key) == b"of another run"
    assert run.candidate() is None
    assert run.candidate("consensus-latency") is not None


def test_a_bundle_that_is_not_the_one_that_the_gate_approved_is_not_copied(task, bucket):
    run = task("v1")
    (file,) = (run.root / "gate").glob("*/modelrollout.yaml")
    file.write_text(re.sub("sha256:[0-9a-f]{64}", f"sha256:{'0' * 64}", file.read_text()))
    with pytest.raises(DwcpError, match="is not the bundle that was approved"):
        run()
    assert bucket.keys() == []
    assert run.candidate() is None


def test_a_store_that_refuses_leaves_the_candidate_as_it_was(task, monkeypatch):
    task("v1")()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("dwcp_ml.storage.remote_objects.FIRST_WAIT_SECONDS", 0.0)
    run = task("v2")
    with pytest.raises(DwcpError, match="can't be reached"):
        run()
    assert run.candidate()["version"] == "v1"


def test_the_second_run_leaves_a_canary_of_the_first(task, api):
    first = task("v1")
    first()
    rollout = api.at(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    status = {"phase": "Promoted", "candidate": rollout["spec"]["candidate"]}
    api.aside().replace({**rollout, "status": status}, status=True)
    second = task("v2")
    second()
    text = (second.root / f"published/{NAME}/inferenceservice.yaml").read_text()
    spec = yaml.safe_load(text)["spec"]
    assert spec["predictor"]["model"]["storageUri"] == f"{first.prefix}/{NAME}/v1"
    assert spec["canary"][0]["trafficPercent"] == 1
    assert spec["canary"][0]["predictor"]["model"]["storageUri"] == f"{first.prefix}/{NAME}/v2"
