"""What the gate approved becomes a candidate, and nothing else of the cluster changes."""

import subprocess
import sys

import pytest
import yaml

from dwcp_ml.contract.errors import DwcpError, ExportFailed
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import MODEL_ROLLOUT, AccessDenied, ApiUnavailable, Conflict, Gone
from dwcp_ml.kube.publish_candidate import MAX_TRIES, check_destination, live_uri
from tests.kube.publishing import (
    DIGEST,
    NAMES,
    NAMESPACE,
    PREFIX,
    VERSION,
    Publication,
    existing_rollout,
    written,
)


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_every_approved_model_gets_the_rollout_that_the_gate_wrote(tmp_path, mode):
    publication = Publication(written(tmp_path, *MODELS, mode=mode))
    publication()
    assert publication.candidates() == dict.fromkeys(NAMES, VERSION)
    assert len(publication.said) == 4
    assert all("was created" in one for one in publication.said)
    assert {call.kind for call in publication.api.writes} == {MODEL_ROLLOUT}
    found = publication.api.at(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    gates = yaml.safe_load((tmp_path / "bandwidth_predictor/modelrollout.yaml").read_text())
    assert found["spec"] == gates["spec"]
    assert found["metadata"]["labels"] == gates["metadata"]["labels"]


def test_of_one_that_is_there_only_the_candidate_changes(tmp_path):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    before = existing_rollout(
        publication.api, paused=True, steps=[{"trafficPercent": 50}, {"trafficPercent": 100}]
    )
    publication()
    after = publication.api.at(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    assert after["spec"].pop("candidate") == {
        "storageUri": f"{PREFIX}/bandwidth_predictor/{VERSION}", "version": VERSION,
        "digest": f"sha256:{'ab' * 32}",
    }  # fmt: skip
    before["spec"].pop("candidate")
    assert after["spec"] == before["spec"]
    assert [call.verb for call in publication.api.writes] == ["replace"]
    publication()
    assert len(publication.api.writes) == 1, "what it has already is not written again"


def test_a_runtime_that_the_platform_engineer_chose_stays(tmp_path):
    """Else the next bundle would be served by the image of before."""
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    found = existing_rollout(publication.api)
    found["spec"]["candidate"]["runtime"] = "dwcp-ml-60303ae2"
    publication.api.aside().replace(found)
    publication()
    after = publication.api.at(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    candidate = after["spec"]["candidate"]
    assert (candidate["version"], candidate["runtime"]) == (VERSION, "dwcp-ml-60303ae2")
    publication()
    assert len(publication.api.writes) == 1, "what it has already is not written again"


@pytest.mark.parametrize("spec", [None, "text", {"candidate": "text"}])
def test_one_that_is_no_rollout_becomes_one(tmp_path, spec):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    found = existing_rollout(publication.api)
    publication.api.aside().replace({**found, "spec": spec})
    publication()
    assert publication.candidates() == {"bandwidth-predictor": VERSION}


def test_models_of_a_rejected_run_are_published_where_the_gate_approved_them(tmp_path):
    publication = Publication(written(tmp_path, "consensus_latency"))
    publication(verdict="REJECTED")
    assert publication.candidates() == {"consensus-latency": VERSION}


def test_without_an_approved_model_nothing_is_asked_and_an_approval_without_one_fails(tmp_path):
    publication = Publication(tmp_path / "not there")
    publication.api.before = pytest.fail
    publication(verdict="REJECTED")
    assert publication.said == ["The gate approved no model: nothing is published."]
    with pytest.raises(DwcpError, match="left no ModelRollout"):
        publication(verdict="APPROVED")


def test_one_that_takes_no_candidate_is_named_and_the_others_go_on(tmp_path):
    publication = Publication(written(tmp_path, *MODELS))
    existing_rollout(publication.api, abort=True)
    publication.api.admit = lambda one: "abort is true" if one["spec"].get("abort") else None
    with pytest.raises(DwcpError) as refused:
        publication()
    assert str(refused.value).startswith("bandwidth_predictor was not published: ")
    assert "abort is true" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value) in publication.said
    assert publication.candidates() == {
        **dict.fromkeys(NAMES, VERSION),
        "bandwidth-predictor": "v1",
    }
    assert publication.slept == [], "a rejected candidate is not retried"


def test_one_that_is_being_deleted_takes_none(tmp_path):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    existing_rollout(publication.api)
    keep = lambda one: one["metadata"].update(finalizers=["x"])  # noqa: E731
    publication.api.edit(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor", keep)
    publication.api.aside().delete(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    with pytest.raises(DwcpError, match="is being deleted"):
        publication()
    assert publication.candidates() == {"bandwidth-predictor": "v1"}


# concurrent writes, and a failing server


def test_a_concurrent_write_of_another_client_stays(tmp_path):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    existing_rollout(publication.api)
    left = [3]

    def write_concurrently(call):
        if call.verb == "replace" and left[0]:
            left[0] -= 1
            change = lambda one: one["spec"].update(watchSeconds=left[0])  # noqa: E731
            publication.api.edit(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor", change)

    publication.api.before = write_concurrently
    publication()
    assert publication.slept == [0.5, 1.0, 2.0]
    found = publication.api.at(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")["spec"]
    assert (found["candidate"]["version"], found["watchSeconds"]) == (VERSION, 0)


def test_one_that_comes_and_one_that_goes_meanwhile(tmp_path):
    publication = Publication(written(tmp_path, "bandwidth_predictor"))
    acts = iter([
        lambda: existing_rollout(publication.api),  # before the create
        lambda: publication.api.aside().delete(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor"),
        lambda: None,
    ])  # fmt: skip
    publication.api.before = lambda call: call.is_write and next(acts)()
    publication()
    assert publication.candidates() == {"bandwidth-predictor": VERSION}
    assert [call.verb for call in publication.api.writes] == ["create"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_lost_response_the_object_is_read_again(tmp_path, when):
    publication = Publication(written(tmp_path, *MODELS))
    failed = set()

    def lose(call):
        if call.name not in failed and call.is_write:
            failed.add(call.name)
            raise ApiUnavailable("No response.")

    setattr(publication.api, when, lose)
    publication()
    assert publication.candidates() == dict.fromkeys(NAMES, VERSION)
    assert len(publication.api.writes) == 4, "none is made twice"


@pytest.mark.parametrize("error", [ApiUnavailable, Conflict, Gone, AccessDenied])
def test_a_server_that_always_fails_is_one_sentence(tmp_path, error):
    publication = Publication(written(tmp_path, "bandwidth_predictor", "consensus_latency"))

    def fail(call):
        if call.name == "bandwidth-predictor" and call.is_write:
            raise error("The API server does not.")

    publication.api.before = fail
    with pytest.raises(DwcpError) as refused:
        publication()
    assert str(refused.value) == "bandwidth_predictor was not published: The API server does not."
    assert publication.candidates() == {"consensus-latency": VERSION}
    assert len(publication.slept) == (0 if error is AccessDenied else MAX_TRIES - 1)


def test_without_a_namespace_nothing_is_checked():
    check_destination("", "")
    check_destination("", PREFIX)
    check_destination("models", "pvc://dwcp-models")


def test_it_imports_neither_kubeflow_nor_what_trains():
    program = (
        "import sys; import dwcp_ml.kube.publish_candidate, dwcp_ml.kube.client; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"kfp", "tensorflow", "keras", "sklearn", "onnx", "onnxruntime", "kserve", "pandas"}
    assert not heavy & set(done.stdout.split())


def test_a_bundle_is_at_its_address_before_a_rollout_names_it(tmp_path):
    publication = Publication(written(tmp_path, *MODELS))
    publication()
    assert publication.delivered == [
        (name, DIGEST, writes) for writes, name in enumerate(sorted(MODELS))
    ]


def test_a_bundle_that_can_not_be_delivered_is_not_named_and_the_others_are(tmp_path):
    publication = Publication(written(tmp_path, *MODELS))

    def deliver(name, digest):
        if name == "reliability_detector":
            raise ExportFailed("another bundle is there")

    publication.deliver = deliver
    with pytest.raises(DwcpError, match=r"^reliability_detector was not published: another bundle"):
        publication()
    assert set(publication.candidates()) == set(NAMES) - {"reliability-detector"}


LIVE = {"version": "v1", "digest": f"sha256:{'cd' * 32}", "storageUri": "s3://live/v1"}
OTHER = {**LIVE, "version": "v2", "storageUri": "s3://other/v2"}


@pytest.mark.parametrize(
    ("status", "live"),
    [
        (None, ""),
        ("text", ""),
        ({}, ""),
        ({"phase": "FirstDeployment", "candidate": OTHER}, ""),
        ({"phase": "Promoted", "candidate": LIVE, "stable": OTHER}, "s3://live/v1"),
        ({"phase": "Promoted", "candidate": LIVE}, "s3://live/v1"),
        ({"phase": "Progressing", "candidate": OTHER, "stable": LIVE}, "s3://live/v1"),
        ({"phase": "Watching", "candidate": OTHER, "stable": LIVE}, "s3://live/v1"),
        ({"phase": "RolledBack", "candidate": OTHER, "stable": LIVE}, "s3://live/v1"),
        ({"phase": "Promoted", "candidate": {"version": "v1"}}, ""),
        ({"phase": "Promoted", "candidate": {"storageUri": 1}}, ""),
    ],
)
def test_what_is_live_is_read_from_the_status(status, live):
    assert live_uri({"status": status}) == live
    assert live_uri(None) == ""


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_the_inference_service_is_a_canary_of_what_is_live(tmp_path, mode):
    publication = Publication(written(tmp_path / "gate", "bandwidth_predictor", mode=mode))
    publication(output=tmp_path / "first")
    first = inference_service(tmp_path / "first")
    assert "canary" not in first["spec"]
    assert "canaryTrafficPercent" not in first["spec"]["predictor"]

    publication = Publication(written(tmp_path / "gate", "bandwidth_predictor", mode=mode))
    existing = existing_rollout(publication.api)
    status = {"phase": "Promoted", "candidate": LIVE}
    publication.api.aside().replace({**existing, "status": status}, status=True)
    publication(output=tmp_path / "second")
    spec = inference_service(tmp_path / "second")["spec"]
    if mode == "standard":
        assert spec["predictor"]["model"]["storageUri"] == "s3://live/v1"
        (canary,) = spec["canary"]
        assert canary["trafficPercent"] == 1
        assert canary["predictor"]["model"]["storageUri"].endswith(f"bandwidth_predictor/{VERSION}")
    else:
        assert spec["predictor"]["canaryTrafficPercent"] == 1


def test_what_is_live_already_gets_no_canary_of_itself(tmp_path):
    publication = Publication(written(tmp_path / "gate", "bandwidth_predictor"))
    publication()
    rollout = publication.api.at(MODEL_ROLLOUT, NAMESPACE, "bandwidth-predictor")
    status = {"phase": "Promoted", "candidate": rollout["spec"]["candidate"]}
    publication.api.aside().replace({**rollout, "status": status}, status=True)
    publication(output=tmp_path / "again")
    assert "canary" not in inference_service(tmp_path / "again")["spec"]


def inference_service(directory):
    return yaml.safe_load((directory / "bandwidth_predictor/inferenceservice.yaml").read_text())
