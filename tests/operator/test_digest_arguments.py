"""Every server that the operator deploys is told which bundle it may serve, and no other."""

import json

import pytest

from dwcp_ml.cli.serve import command as serve_command
from dwcp_ml.kube.api import INFERENCE_SERVICE, POD
from dwcp_ml.kube.kserve.objects import server_arguments
from tests.matrix import diagonal, few
from tests.operator.fake_servers import NAME, NAMESPACE, digest_of
from tests.operator.scenario import SHARES, Scenario, at, candidate, digest, rollout

MODES = ("Standard", "Knative")


def args_of(predictor):
    return predictor["model"].get("args")


def approved(predictor):
    return [f"--digest=bandwidth_predictor={digest_of(predictor)}"]


def predictors_of(service):
    """Return every predictor of an InferenceService, also the stable that is only recorded."""
    spec = service["spec"]
    yield spec["predictor"]
    for entry in spec.get("canary") or []:
        yield entry["predictor"]
    recorded = spec["predictor"].get("annotations", {}).get("ml.dwcp.io/stable")
    if recorded:
        yield json.loads(recorded)


def written(scenario):
    """Return every predictor that was ever written, with what its servers are told."""
    changes = [one for one in scenario.api.changes if one.kind is INFERENCE_SERVICE]
    found = [
        predictor
        for change in changes
        if change.type != "DELETED"
        for predictor in predictors_of(change.obj)
    ]
    assert found
    return found


def hold(scenario, adopted=(1,)):
    """Every predictor names its own digest; a stable that was there before has no argument."""
    known = {digest(number) for number in adopted}
    for predictor in written(scenario):
        expected = None if digest_of(predictor) in known else approved(predictor)
        assert args_of(predictor) == expected


def pods_of(scenario):
    return {
        pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in scenario.api.list(POD, NAMESPACE)
    }


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_through_a_whole_rollout(mode):
    scenario = Scenario(mode=mode)
    assert scenario.until_end() == "Promoted"
    hold(scenario)
    assert args_of(scenario.service["spec"]["predictor"]) == server_arguments(
        "bandwidth_predictor", digest(2)
    )


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_the_first_deployment(mode):
    scenario = Scenario(mode=mode, first=True)
    assert scenario.until_end() == "Promoted"
    hold(scenario, adopted=())


@pytest.mark.parametrize(("share", "mode"), diagonal(SHARES, MODES))
def test_after_a_roll_back_the_stable_is_told_what_it_was_told_before(mode, share):
    scenario = Scenario(mode=mode)
    assert scenario.until_end() == "Promoted"
    scenario.edit(lambda one: one["spec"].update(candidate=candidate(3)))
    for _ in range(200):
        scenario.reconcile()
        if scenario.fleet.routed().get(digest(3)) == share:
            break
    before = [each for each in predictors_of(scenario.service) if digest_of(each) == digest(2)]
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    hold(scenario)
    (stable,) = [scenario.service["spec"]["predictor"]]
    assert digest_of(stable) == digest(2)
    assert args_of(stable) == approved(before[0])


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_stable_that_was_there_before_is_left_alone(mode):
    """It has no argument: neither a rollout nor a roll-back restarts it to add one."""
    scenario = at(25, mode=mode)
    predictor = next(
        each for each in predictors_of(scenario.service) if digest_of(each) == digest(1)
    )
    assert args_of(predictor) is None
    before = pods_of(scenario)
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    hold(scenario)
    if mode == "Standard":  # in Knative mode the stable comes back as a new revision in any case
        after = pods_of(scenario)
        assert after
        assert after.items() <= before.items()


def test_a_promotion_changes_no_pod_template():
    scenario = at(100)
    (entry,) = scenario.service["spec"]["canary"]
    before = pods_of(scenario)
    assert scenario.until_end() == "Promoted"
    predictor = scenario.service["spec"]["predictor"]
    scaling = ("minReplicas", "maxReplicas")
    same = {key: value for key, value in predictor.items() if key not in scaling}
    assert same == {key: value for key, value in entry["predictor"].items() if key not in scaling}
    after = pods_of(scenario)
    assert after
    assert after.items() <= before.items()


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_candidate_of_an_older_operator_gets_the_argument_while_it_has_no_traffic(mode):
    """That operator wrote none; whatever else is equal, the servers have to be told."""
    scenario = Scenario(mode=mode)
    while all(digest_of(one) != digest(2) for one in predictors_of(scenario.service)):
        scenario.reconcile()

    def older(service):
        for predictor in (
            service["spec"]["predictor"],
            *(entry["predictor"] for entry in service["spec"].get("canary") or []),
        ):
            if digest_of(predictor) == digest(2):
                del predictor["model"]["args"]
                predictor["annotations"]["ml.dwcp.io/template"] = "0123456789abcdef"

    scenario.api.edit(INFERENCE_SERVICE, NAMESPACE, NAME, older)
    assert scenario.until_end() == "Promoted"
    assert args_of(scenario.service["spec"]["predictor"]) == [
        f"--digest=bandwidth_predictor={digest(2)}"
    ]


def test_the_server_has_the_option():
    names = {name for option in serve_command.params for name in option.opts}
    (argument,) = server_arguments("bandwidth_predictor", f"sha256:{digest(2)}")
    name, _, value = argument.partition("=")
    assert name in names
    assert value == f"bandwidth_predictor={digest(2)}"


@pytest.mark.parametrize("mode", few(MODES, "Knative"))
def test_a_template_can_set_no_argument(mode):
    """The API server drops or rejects the field; the operator refuses an object that has it."""
    made = rollout()
    made["spec"]["template"]["predictor"]["model"]["args"] = ["--digest=bandwidth_predictor=0"]
    scenario = Scenario(made, mode=mode)
    for _ in range(3):
        scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "InvalidSpec"
    assert digest(2) not in str(scenario.service["spec"])
