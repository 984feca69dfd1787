"""What the gate did not write, and where nothing can be rolled out, is refused in a sentence."""

import pytest
import yaml

from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH, MODELS
from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from dwcp_ml.kube.manifests import ROLLOUT_FILE
from dwcp_ml.kube.publish_candidate import (
    check_destination,
    desired_rollout,
    parse_rollout,
    publish_candidates,
)
from tests.errors import about
from tests.kube.publishing import NAMESPACE, PREFIX, VERSION, Publication, written
from tests.operator.memory_api import MemoryApi


def _changed(document, path, value):
    *way, last = path.split(".")
    place = document
    for key in way:
        place = place[key]
    place[last] = value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("kind", "InferenceService"),
        ("apiVersion", INFERENCE_SERVICE.api_version),
        ("metadata.name", "another"),
        ("metadata.namespace", "kube-system"),
        ("metadata.annotations", {"a": "b"}),
        ("metadata", None),
        ("spec", None),
        ("spec.candidate", []),
        ("spec.candidate.storageUri", "s3://evil/bandwidth_predictor/1"),
        ("spec.candidate.version", "another"),
        ("spec.candidate.digest", "sha256:short"),
        ("spec.candidate.digest", 5),
        ("spec.template.predictor.serviceAccountName", "admin"),
        ("spec.template.deploymentMode", "Serverless"),
        ("spec.template.deploymentMode", 1),
        ("spec.steps", [{"trafficPercent": 100}]),
        ("spec.model", "consensus_latency"),
        ("status", {"phase": "Promoted"}),
    ],
)
def test_what_the_gate_did_not_write_is_not_published(tmp_path, path, value):
    publication = Publication(written(tmp_path, "bandwidth_predictor", "consensus_latency"))
    file = tmp_path / "bandwidth_predictor/modelrollout.yaml"
    document = yaml.safe_load(file.read_text())
    _changed(document, path, value)
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(DwcpError, match="is not what the gate writes"):
        publication()
    assert publication.candidates() == {"consensus-latency": VERSION}


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"a: [", b"\xff", b"[" * 2_000,
     pytest.param(b"[" * 60_000, marks=pytest.mark.slow), b"a: " + b"x" * 70_000, b"&a [*a]",
     b"1: *b", b"--- 1\n--- 2", b"!!python/object/apply:os.getcwd []", b"a: 2001-99-99"],
)  # fmt: skip
def test_garbage_is_one_sentence(tmp_path, content):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    (tmp_path / "bandwidth_predictor/modelrollout.yaml").write_bytes(content)
    with pytest.raises(DwcpError) as refused:
        publication()
    assert str(refused.value).count("\n") == 0
    assert "modelrollout.yaml" in str(refused.value)
    assert publication.api.writes == []


def test_a_directory_that_is_no_model_is_named(tmp_path):
    publication = Publication(written(tmp_path, "consensus_latency"))
    (tmp_path / "consensus_latency").rename(tmp_path / "consensus_latncy")
    with pytest.raises(DwcpError, match="There is no model 'consensus_latncy'"):
        publication()


def test_another_runs_manifests_are_refused(tmp_path):
    text = written(tmp_path, "bandwidth_predictor").joinpath(
        "bandwidth_predictor/modelrollout.yaml"
    )
    parse_rollout(text.read_text(), BANDWIDTH, VERSION, PREFIX)
    for version, prefix in (("other", PREFIX), (VERSION, "s3://elsewhere")):
        with pytest.raises(UsageError, match="is not what the gate writes"):
            parse_rollout(text.read_text(), BANDWIDTH, version, prefix)


@pytest.mark.parametrize(
    ("namespace", "prefix", "word"),
    [
        ("models", "", "needs storage_prefix"),
        ("models", "models", "is not a URI"),
        ("models", "s3:// models", "is not a URI"),
        ("models", "az://container/models", "KServe reads Azure as https://ACCOUNT"),
        ("models", "https://example.com/models", "a web server takes no bundles"),
        ("models", "file:///models", "a file is on one machine"),
        ("models", "hdfs://models", "there is no reader for hdfs://"),
        ("models", "s3://key:secret@models", "was given with credentials"),
        ("models", "pvc://../models", "is not an address of a volume"),
        ("Models", PREFIX, "is not a namespace"),
        ("a/b", PREFIX, "is not a namespace"),
        ("-", PREFIX, "is not a namespace"),
        ("n" * 64, PREFIX, "is not a namespace"),
        ("models\n", PREFIX, "is not a namespace"),
    ],
)
def test_no_destination_is_one_sentence(tmp_path, namespace, prefix, word):
    with pytest.raises(UsageError, match=word):
        check_destination(namespace, prefix)
    api = MemoryApi()
    with pytest.raises(UsageError, match=word):
        publish_candidates(
            written(tmp_path, *MODELS), namespace, api, version=VERSION, storage_prefix=prefix,
            verdict="APPROVED", deliver=pytest.fail,
        )  # fmt: skip
    assert api.writes == []


@pytest.mark.parametrize("where", ["candidate", "status.candidate", "status.stable"])
def test_a_version_is_never_overwritten(tmp_path, where):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    publication()
    known = {"version": VERSION, "digest": f"sha256:{'cd' * 32}", "storageUri": f"{PREFIX}/x"}
    body = publication.api.get(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    if where == "candidate":
        body["spec"]["candidate"] = known
    else:
        body["spec"]["candidate"] = {**known, "version": "v9"}
        body["status"] = {where.removeprefix("status."): known}
    with pytest.raises(DwcpError, check=about(ErrorCode.ALREADY_EXISTS, VERSION)):
        desired_rollout(body, parse(tmp_path))


def test_the_same_digest_is_no_write(tmp_path):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    publication()
    version = publication.api.version
    publication()
    assert publication.api.version == version


def parse(root):
    text = (root / "bandwidth_predictor" / ROLLOUT_FILE).read_text()
    return parse_rollout(text, MODELS["bandwidth_predictor"], VERSION, PREFIX)
