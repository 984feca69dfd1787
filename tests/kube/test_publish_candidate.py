"""What the gate approved becomes a candidate, and nothing else of the cluster changes."""

import subprocess
import sys

import pytest
import yaml

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import MODEL_ROLLOUT, Conflict, Forbidden, Gone, Unavailable
from dwcp_ml.kube.publish_candidate import MAX_TRIES, check_destination
from tests.kube.publishing import NAMES, PREFIX, SPACE, VERSION, Play, made_before, written


@pytest.mark.parametrize("mode", ["standard", "knative"])
def test_every_approved_model_gets_the_rollout_that_the_gate_wrote(tmp_path, mode):
    play = Play(written(tmp_path, *MODELS, mode=mode))
    play()
    assert play.candidates() == dict.fromkeys(NAMES, VERSION)
    assert len(play.said) == 4
    assert all("was created" in one for one in play.said)
    assert {call.kind for call in play.api.writes} == {MODEL_ROLLOUT}
    found = play.api.at(MODEL_ROLLOUT, SPACE, "bandwidth-predictor")
    gates = yaml.safe_load((tmp_path / "bandwidth_predictor/modelrollout.yaml").read_text())
    assert found["spec"] == gates["spec"]
    assert found["metadata"]["labels"] == gates["metadata"]["labels"]


def test_of_one_that_is_there_only_the_candidate_changes(tmp_path):
    play = Play(written(tmp_path, "bandwidth_predictor"))
    before = made_before(
        play.api, paused=True, steps=[{"trafficPercent": 50}, {"trafficPercent": 100}]
    )
    play()
    after = play.api.at(MODEL_ROLLOUT, SPACE, "bandwidth-predictor")
    assert after["spec"].pop("candidate") == {
        "storageUri": f"{PREFIX}/bandwidth_predictor/{VERSION}", "version": VERSION,
        "digest": f"sha256:{'ab' * 32}",
    }  # fmt: skip
    before["spec"].pop("candidate")
    assert after["spec"] == before["spec"]
    assert [call.verb for call in play.api.writes] == ["replace"]
    play()
    assert len(play.api.writes) == 1, "what it has already is not written again"


@pytest.mark.parametrize("spec", [None, "text", {"candidate": "text"}])
def test_one_that_is_no_rollout_becomes_one(tmp_path, spec):
    play = Play(written(tmp_path, "bandwidth_predictor"))
    found = made_before(play.api)
    play.api.aside().replace({**found, "spec": spec})
    play()
    assert play.candidates() == {"bandwidth-predictor": VERSION}


def test_models_of_a_rejected_run_are_published_where_the_gate_approved_them(tmp_path):
    play = Play(written(tmp_path, "consensus_latency"))
    play(verdict="REJECTED")
    assert play.candidates() == {"consensus-latency": VERSION}


def test_without_an_approved_model_nothing_is_asked_and_an_approval_without_one_fails(tmp_path):
    play = Play(tmp_path / "not there")
    play.api.before = pytest.fail
    play(verdict="REJECTED")
    assert play.said == ["The gate approved no model: nothing is published."]
    with pytest.raises(DwcpError, match="left no ModelRollout"):
        play(verdict="APPROVED")


def test_one_that_takes_no_candidate_is_named_and_the_others_go_on(tmp_path):
    play = Play(written(tmp_path, *MODELS))
    made_before(play.api, abort=True)
    play.api.admit = lambda one: "abort is on" if one["spec"].get("abort") else None
    with pytest.raises(DwcpError) as refused:
        play()
    assert str(refused.value).startswith("bandwidth_predictor was not published: ")
    assert "abort is on" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert str(refused.value) in play.said
    assert play.candidates() == {**dict.fromkeys(NAMES, VERSION), "bandwidth-predictor": "v1"}
    assert play.slept == [], "what is refused is not tried again"


def test_one_that_is_being_deleted_takes_none(tmp_path):
    play = Play(written(tmp_path, "bandwidth_predictor"))
    made_before(play.api)
    keep = lambda one: one["metadata"].update(finalizers=["x"])  # noqa: E731
    play.api.edit(MODEL_ROLLOUT, SPACE, "bandwidth-predictor", keep)
    play.api.aside().delete(MODEL_ROLLOUT, SPACE, "bandwidth-predictor")
    with pytest.raises(DwcpError, match="is being deleted"):
        play()
    assert play.candidates() == {"bandwidth-predictor": "v1"}


# others who write, and a server that fails


def test_what_somebody_else_writes_meanwhile_stays(tmp_path):
    play = Play(written(tmp_path, "bandwidth_predictor"))
    made_before(play.api)
    left = [3]

    def meddle(call):
        if call.verb == "replace" and left[0]:
            left[0] -= 1
            change = lambda one: one["spec"].update(watchSeconds=left[0])  # noqa: E731
            play.api.edit(MODEL_ROLLOUT, SPACE, "bandwidth-predictor", change)

    play.api.before = meddle
    play()
    assert play.slept == [0.5, 1.0, 2.0]
    found = play.api.at(MODEL_ROLLOUT, SPACE, "bandwidth-predictor")["spec"]
    assert (found["candidate"]["version"], found["watchSeconds"]) == (VERSION, 0)


def test_one_that_comes_and_one_that_goes_meanwhile(tmp_path):
    play = Play(written(tmp_path, "bandwidth_predictor"))
    acts = iter([
        lambda: made_before(play.api),  # before the create
        lambda: play.api.aside().delete(MODEL_ROLLOUT, SPACE, "bandwidth-predictor"),
        lambda: None,
    ])  # fmt: skip
    play.api.before = lambda call: call.is_write and next(acts)()
    play()
    assert play.candidates() == {"bandwidth-predictor": VERSION}
    assert [call.verb for call in play.api.writes] == ["create"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_answer_that_is_lost_is_looked_after(tmp_path, when):
    play = Play(written(tmp_path, *MODELS))
    failed = set()

    def lose(call):
        if call.name not in failed and call.is_write:
            failed.add(call.name)
            raise Unavailable("no answer.")

    setattr(play.api, when, lose)
    play()
    assert play.candidates() == dict.fromkeys(NAMES, VERSION)
    assert len(play.api.writes) == 4, "none is made twice"


@pytest.mark.parametrize("error", [Unavailable, Conflict, Gone, Forbidden])
def test_a_server_that_never_takes_it_is_one_sentence(tmp_path, error):
    play = Play(written(tmp_path, "bandwidth_predictor", "consensus_latency"))

    def fail(call):
        if call.name == "bandwidth-predictor" and call.is_write:
            raise error("The API server does not.")

    play.api.before = fail
    with pytest.raises(DwcpError) as refused:
        play()
    assert str(refused.value) == "bandwidth_predictor was not published: The API server does not."
    assert play.candidates() == {"consensus-latency": VERSION}
    assert len(play.slept) == (0 if error is Forbidden else MAX_TRIES - 1)


def test_nowhere_needs_nothing():
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
