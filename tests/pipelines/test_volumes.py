"""An address on a volume that no task mounts is refused before anything runs."""

from dataclasses import replace

import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.kubeflow.arguments import parse_arguments
from dwcp_ml.kubeflow.client import RunRequest
from dwcp_ml.kubeflow.package import read_package
from dwcp_ml.kubeflow.volumes import missing_volume
from dwcp_ml.operator.policy import Policy
from dwcp_ml.operator.submission import refusal_of_run
from pipelines.training import COMPILED
from tests.errors import coded


def mounted(task, *mounts):
    """Return our own pipeline with volumes of one task, as kfp writes them."""
    package = read_package(COMPILED)
    settings = {"pvcMount": [{"constant": claim, "mountPath": path} for claim, path in mounts]}
    executors = {"executors": {f"exec-{task}": settings}}
    return replace(package, platform={"platforms": {"kubernetes": {"deploymentSpec": executors}}})


NOTHING = mounted("gate")
TELEMETRY = mounted("validate-data", ("telemetry", "/mnt/pvc/telemetry"), ("more", "/data/"))


@pytest.mark.parametrize(
    "address",
    [
        "pvc://telemetry/t.csv", "/data/t.csv", "/data/a/t.csv", "/mnt/pvc/telemetry/t.csv",
        "file:///data/t.csv", "s3://b/t.csv", "https://h/t.csv",
    ],
)  # fmt: skip
def test_what_a_volume_holds_can_be_read(address):
    assert missing_volume(TELEMETRY.body(), "data_path", address) == ""


@pytest.mark.parametrize(
    "address",
    [
        "pvc://other/t.csv", "pvc://more/t.csv", "/database/t.csv", "/etc/passwd",
        "/data/../var/run/secrets/token", "file:///data/../etc/passwd", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_what_no_volume_holds_can_not(address):
    why = missing_volume(TELEMETRY.body(), "data_path", address)
    assert "the task validate-data of this pipeline has no volume" in why
    assert missing_volume(NOTHING.body(), "data_path", address)


def test_the_bundles_need_a_volume_of_the_task_that_publishes():
    package = mounted("publish-candidate", ("dwcp-models", "/mnt/pvc/dwcp-models"))
    assert missing_volume(package.body(), "storage_prefix", "pvc://dwcp-models/a") == ""
    assert missing_volume(package.body(), "data_path", "pvc://dwcp-models/a")


def test_the_names_of_the_compiled_pipeline_are_known():
    """Else every volume would be missing."""
    components = read_package(COMPILED).spec["components"]
    for task in ("validate-data", "publish-candidate"):
        assert components[f"comp-{task}"]["executorLabel"] == f"exec-{task}"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["data_path=pvc://telemetry/t.csv"], ErrorCode.MISSING),
        (["incidents_path=pvc://telemetry/i.json"], ErrorCode.MISSING),
        (["storage_prefix=pvc://m", "rollout_namespace=models"], ErrorCode.MISSING),
        (["data_path=hdfs://n/t.csv"], ErrorCode.UNSUPPORTED),
        (["data_path=s3://k:secret@b/t.csv"], ErrorCode.FORBIDDEN),
        (["storage_prefix=az://c/m", "rollout_namespace=models"], ErrorCode.UNSUPPORTED),
    ],
)
def test_a_submission_is_refused_before_anything_is_sent(words, code):
    with pytest.raises(UsageError, check=coded(code)):
        parse_arguments(NOTHING, words)


def test_a_submission_of_what_can_work_is_not():
    words = ["data_path=pvc://telemetry/t.csv#md5=" + "0" * 32, "incidents_path=/in/the/image.json"]
    assert parse_arguments(TELEMETRY, words)
    assert parse_arguments(NOTHING, ["storage_prefix=pvc://m"]), "nothing is written there"


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("pvc://telemetry/t.csv", True), ("/data/t.csv", True), ("file:///data/t.csv", True),
        ("/var/run/secrets/kubernetes.io/serviceaccount/token", False), ("pvc://other/t", False),
        ("az://c/t.csv", True), ("hdfs://n/t.csv", False), ("http://h.example/t.csv", False),
        ("s3://key:secret@b/t.csv", False), ("/data/t.csv#md5=" + "0" * 32, True),
    ],
)  # fmt: skip
def test_a_training_run_reads_volumes_of_its_pipeline_only(address, allowed):
    body = TELEMETRY.body()
    request = RunRequest("n", "e", "ns", body, {"data_path": address}, service_account="")
    why = refusal_of_run(request, Policy())
    assert (why == "") is allowed, why
    assert not why or why.startswith("spec.data.uri is not allowed here: ")
    assert "secret@" not in why


@pytest.mark.parametrize("prefix", ["pvc://dwcp-models", "https://169.254.169.254/x"])
def test_where_a_training_run_writes_is_checked_as_well(prefix):
    request = RunRequest("n", "e", "ns", NOTHING.body(), {"storage_prefix": prefix},
                         service_account="")  # fmt: skip
    assert refusal_of_run(request, Policy()).startswith("spec.storagePrefix is not allowed here")
