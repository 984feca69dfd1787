"""Argo CD shows the right health in every phase: our Lua script, run by a Lua interpreter."""

import pytest
import yaml

from dwcp_ml.operator.api.training_status import TrainingReason
from dwcp_ml.rollout.reason import Reason
from tests.manifests.argocd import CHECKS, health, scripts
from tests.operator.status_examples import STATUS_EXAMPLES, WITHOUT_STATUS

EXAMPLES = [*STATUS_EXAMPLES, *WITHOUT_STATUS]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda one: one.name)
def test_argo_cd_shows_the_health_and_the_reason(example):
    answer = health(example.obj, scripts()[example.kind])
    assert answer == (example.health, example.message)


@pytest.mark.parametrize("conditions", [None, [], [{"type": "Other", "status": "True"}]])
def test_a_status_without_our_conditions_is_progress(conditions):
    (example,) = [one for one in EXAMPLES if one.name == "nothing to do"]
    obj = example.obj
    obj["status"].pop("conditions")
    if conditions is not None:
        obj["status"]["conditions"] = conditions
    status, message = health(obj, scripts()["ModelRollout"])
    assert (status, bool(message)) == ("Progressing", True)


def test_a_condition_that_is_unknown_is_not_true():
    (example,) = [one for one in EXAMPLES if one.name == "nothing to do"]
    obj = example.obj
    for condition in obj["status"]["conditions"]:
        condition["status"] = "Unknown"
    assert health(obj, scripts()["ModelRollout"])[0] == "Progressing"


def test_the_patch_names_the_config_map_of_argo_cd_and_both_kinds():
    patch = yaml.safe_load(CHECKS.read_text())
    assert (patch["kind"], patch["metadata"]["name"]) == ("ConfigMap", "argocd-cm")
    assert scripts().keys() == {"ModelRollout", "TrainingRun"}


def test_every_example_has_a_reason_of_the_closed_lists():
    reasons = {"ModelRollout": set(Reason), "TrainingRun": set(TrainingReason)}
    for example in EXAMPLES:
        assert example.reason in reasons[example.kind] | {""}, example.name
