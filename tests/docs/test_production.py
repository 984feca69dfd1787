"""docs/production.md: what a person does by hand is what the operator goes on from."""

import json
import re

import pytest
import yaml

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from tests.docs.pages import ROOT, blocks_of
from tests.operator.fake_servers import digest_of
from tests.operator.scenario import KEY, Scenario, at, candidate, digest

PAGE = ROOT / "docs/production.md"


def patches(heading):
    """Return the patches of the blocks below a heading: JSON, with shell words taken out."""
    text = "".join(block.text for block in blocks_of(PAGE, "bash") if block.heading == heading)
    found = re.findall(r"-p '((?:[^']|'\"\$\(before \w+\)\"')+)'", text)
    return [json.loads(re.sub(r"'\"\$\(before (\w+)\)\"'", r"<\1>", one)) for one in found]


def carry_out(document, operations):
    """Apply a JSON patch of replacements."""
    for one in operations:
        assert one["op"] == "replace"
        *way, last = [part.replace("~1", "/") for part in one["path"].split("/")[1:]]
        place = document
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        assert last in place, one["path"]
        place[last] = one["value"]


def test_after_a_promotion_the_operator_leaves_what_was_put_back_alone():
    scene = Scenario()
    scene.until_end()
    before = scene.status["stable"]
    (patch,) = patches("After it was promoted")
    for one in patch:
        one["value"] = before[one["value"].strip("<>")]
    scene.api.edit(INFERENCE_SERVICE, *KEY, lambda found: carry_out(found, patch))
    put_back = scene.service
    assert digest_of(put_back["spec"]["predictor"]) == digest(1)
    for _ in range(5):
        scene.reconcile(300)
    assert scene.service == put_back
    scene.edit(lambda found: found["spec"].update(candidate=candidate(3)))
    assert scene.until_end() == "Promoted"
    assert scene.status["stable"]["digest"].endswith(digest(1))


def test_a_candidate_that_was_silenced_by_hand_is_taken_out_when_the_operator_is_back():
    scene = at(25)
    told, silenced = patches("With the operator dead")[:2]
    scene.api.edit(MODEL_ROLLOUT, *KEY, lambda found: found["spec"].update(told["spec"]))
    scene.api.edit(INFERENCE_SERVICE, *KEY, lambda found: carry_out(found, silenced))
    scene.kserve.settle()
    scene.restart()
    assert scene.until_end() == "RolledBack"
    assert not scene.service["spec"].get("canary")
    assert digest_of(scene.service["spec"]["predictor"]) == digest(1)


def test_without_being_told_the_operator_would_begin_again():
    """Why the page has the ModelRollout told first."""
    scene = at(25)
    _, silenced = patches("With the operator dead")[:2]
    scene.api.edit(INFERENCE_SERVICE, *KEY, lambda found: carry_out(found, silenced))
    scene.kserve.settle()
    scene.restart()
    assert scene.until_end() == "Promoted"


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_rollout_starts_over_without_its_state(mode):
    scene = at(25, mode=mode)
    scene.edit_status(lambda status: status.update(state='{"version": 0}'))
    scene.reconcile()
    assert scene.status["reason"] == "InvalidState"
    (patch,) = patches("Start a rollout over")
    assert patch == {"status": {"state": None}}
    scene.edit_status(lambda status: [status.pop(key) for key in patch["status"]])
    assert scene.until_end() == "Promoted"


def test_a_service_that_is_gone_can_be_made_as_a_first_deployment():
    scene = Scenario()
    scene.until_end()
    scene.api.aside().delete(INFERENCE_SERVICE, *KEY)
    scene.reconcile()
    assert scene.status["reason"] == "InferenceServiceMissing"
    assert scene.service is None
    (patch,) = patches("Start a rollout over")
    scene.edit_status(lambda status: [status.pop(key) for key in patch["status"]])
    assert scene.until_end() == "Promoted"
    assert digest_of(scene.service["spec"]["predictor"]) == digest(2)


def test_the_overlay_of_the_page_is_one_for_our_names():
    documents = [yaml.safe_load(block.text) for block in blocks_of(PAGE, "yaml")]
    (overlay,) = [document for document in documents if "resources" in document]
    assert overlay["resources"] == ["../dwcp-ml/manifests/overlays/prometheus"]
    assert (ROOT / "manifests/overlays/prometheus/kustomization.yaml").is_file()
    names = {image["name"] for image in overlay["images"]}
    assert names == {"dwcp-ml-operator", "dwcp-ml-server"}
    operator = (ROOT / "manifests/base/operator.yaml").read_text()
    runtime = (ROOT / "manifests/base/serving-runtime.yaml").read_text()
    assert "image: dwcp-ml-operator\n" in operator
    assert "image: dwcp-ml-server:" in runtime


def test_a_gitops_controller_is_told_to_ignore_what_the_operator_writes():
    documents = [yaml.safe_load(block.text) for block in blocks_of(PAGE, "yaml")]
    argo = next(each["spec"] for each in documents if "ignoreDifferences" in each.get("spec", {}))
    flux = next(each["spec"] for each in documents if "driftDetection" in each.get("spec", {}))
    written = ["/spec/predictor", "/spec/canary"]
    (ignored,) = argo["ignoreDifferences"]
    assert ignored["kind"] == INFERENCE_SERVICE.kind
    assert INFERENCE_SERVICE.api_version.startswith(ignored["group"])
    assert ignored["jsonPointers"] == flux["driftDetection"]["ignore"][0]["paths"] == written


def test_the_number_of_rules_is_that_of_the_rules():
    rules = yaml.safe_load((ROOT / "manifests/overlays/prometheus/alert-rules.yaml").read_text())
    count = sum("alert" in rule for group in rules["spec"]["groups"] for rule in group["rules"])
    assert count == 10
    assert "the ten alerts of" in PAGE.read_text()
