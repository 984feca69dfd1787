"""A rollout ends in the mode in which it began, unless nothing of it was ever written."""

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT, AccessDenied
from dwcp_ml.operator.observation import LATE_WRITE_SECONDS
from tests.operator.fake_servers import digest_of, shares_in, workload_of
from tests.operator.faulty import Paused, Pausing
from tests.operator.rules import state_of
from tests.operator.scenario import KEY, Crash, Scenario, at, candidate, digest, rollout

ANNOTATION = "serving.kserve.io/deploymentMode"

both_ways = pytest.mark.parametrize(
    ("began", "other"), [("Standard", "Knative"), ("Knative", "Standard")]
)


def remove_spec(scenario):
    """Take the spec out, which the API server lets nobody do since it has the rule."""
    removed = scenario.resource["spec"]
    scenario.edit(lambda obj: obj.pop("spec"))
    scenario.reconcile()
    assert scenario.status["reason"] == "InvalidSpec"
    return removed


def come_back(scenario, mode, **fields):
    """Remove the spec, and have it back in another mode."""
    removed = remove_spec(scenario)
    template = {**removed["template"], "deploymentMode": mode}
    scenario.edit(lambda obj: obj.update(spec={**removed, "template": template, **fields}))


def wait(scenario, seconds):
    for _ in range(int(seconds / 10)):
        scenario.reconcile()


def is_held(scenario):
    return scenario.is_stalled and scenario.status["reason"] == "SplitNotSupported"


def mode_of(service):
    return service["metadata"]["annotations"][ANNOTATION]


def stored_mode(scenario):
    return state_of(scenario.resource)["mode"]


@both_ways
def test_a_first_deployment_of_which_nothing_was_written_goes_on_in_the_other_mode(began, other):
    scenario = Scenario(rollout(paused=True), first=True, mode=began)
    wait(scenario, 30)
    assert stored_mode(scenario) == began
    come_back(scenario, other, paused=False)
    scenario.reconcile()
    assert is_held(scenario)
    assert scenario.until_end() == "Promoted"
    assert mode_of(scenario.service) == stored_mode(scenario) == other


@both_ways
def test_a_rollout_that_never_fitted_its_service_goes_on_at_once_in_the_mode_of_that(began, other):
    scenario = Scenario(mode=other)
    scenario.edit(lambda obj: obj["spec"]["template"].update(deploymentMode=began))
    wait(scenario, 30)
    assert is_held(scenario)
    assert stored_mode(scenario) == began
    come_back(scenario, other)
    scenario.reconcile()
    assert not scenario.is_stalled
    assert scenario.until_end() == "Promoted"
    assert digest_of(scenario.service["spec"]["predictor"]) == digest(2)


@both_ways
def test_a_service_that_was_deleted_is_made_in_the_other_mode(began, other):
    scenario = Scenario(first=True, mode=began)
    scenario.kserve.unready.add(workload_of(2))
    scenario.reconcile()
    assert mode_of(scenario.service) == began
    come_back(scenario, other)
    scenario.api.aside().delete(INFERENCE_SERVICE, *KEY)
    scenario.kserve.unready.clear()
    wait(scenario, LATE_WRITE_SECONDS)
    assert scenario.service is None
    assert scenario.until_end() == "Promoted"
    assert mode_of(scenario.service) == other


def with_its_first_write_under_way(began, other):
    """Return a scenario whose process died, and the write that it had sent."""
    scenario = Scenario(first=True, mode=began)
    scenario.view = Pausing(scenario.api, 2)  # the state is the first
    with pytest.raises(Paused) as paused:
        scenario.reconcile()
    scenario.view = scenario.api
    scenario.restart()
    assert scenario.service is None
    come_back(scenario, other)
    wait(scenario, LATE_WRITE_SECONDS)
    assert is_held(scenario)
    assert stored_mode(scenario) == began
    return scenario, paused.value.send


@both_ways
def test_a_first_write_that_may_still_come_keeps_its_mode_and_is_aborted_in_it(began, other):
    scenario, send = with_its_first_write_under_way(began, other)
    send()
    wait(scenario, 3 * LATE_WRITE_SECONDS)
    assert stored_mode(scenario) == began
    assert mode_of(scenario.service) == began
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert scenario.service is None


@both_ways
def test_a_process_that_starts_waits_again_for_a_first_write_that_may_still_come(began, other):
    scenario, _ = with_its_first_write_under_way(began, other)
    scenario.restart()
    wait(scenario, LATE_WRITE_SECONDS)
    assert scenario.service is None
    assert is_held(scenario)
    assert scenario.until_end() == "Promoted"
    assert mode_of(scenario.service) == other


@both_ways
@pytest.mark.parametrize("comes", [False, True])
def test_the_wait_starts_over_once_the_mode_was_back_or_the_service_there(began, other, comes):
    scenario, send = with_its_first_write_under_way(began, other)
    if comes:
        send()
        scenario.reconcile()
        scenario.api.aside().delete(INFERENCE_SERVICE, *KEY)
    else:
        come_back(scenario, began, paused=True)
        scenario.reconcile()
        come_back(scenario, other, paused=False)
    wait(scenario, LATE_WRITE_SECONDS)
    assert is_held(scenario)
    assert stored_mode(scenario) == began
    assert scenario.service is None


@both_ways
def test_a_first_write_that_comes_later_than_any_can_stalls_until_its_mode_is_back(began, other):
    scenario, send = with_its_first_write_under_way(began, other)
    scenario.edit(lambda obj: obj["spec"].update(paused=True))
    wait(scenario, 30)
    assert stored_mode(scenario) == other
    send()
    scenario.edit(lambda obj: obj["spec"].update(paused=False))
    wait(scenario, 60)
    assert is_held(scenario)
    assert mode_of(scenario.service) == began
    come_back(scenario, began)
    assert scenario.until_end() == "Promoted"


@both_ways
def test_a_read_that_is_forbidden_shows_nothing(began, other):
    scenario, _ = with_its_first_write_under_way(began, other)
    scenario.view = _Forbids(scenario.api)
    scenario.reconcile()
    assert scenario.status["reason"] == "ReadForbidden"
    scenario.view = scenario.api
    wait(scenario, LATE_WRITE_SECONDS)
    assert is_held(scenario)
    assert stored_mode(scenario) == began


class _Forbids:
    def __init__(self, api):
        self._api = api

    def __getattr__(self, name):
        return getattr(self._api, name)

    def get(self, kind, namespace, name):
        if kind is INFERENCE_SERVICE:
            raise AccessDenied("forbidden")
        return self._api.get(kind, namespace, name)


@both_ways
def test_a_first_deployment_that_is_there_keeps_its_mode(began, other):
    scenario = Scenario(first=True, mode=began)
    scenario.kserve.unready.add(workload_of(2))
    scenario.reconcile()
    come_back(scenario, other)
    before = scenario.service
    wait(scenario, 3 * LATE_WRITE_SECONDS)
    assert is_held(scenario)
    assert stored_mode(scenario) == began
    assert scenario.service["spec"] == before["spec"]
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert scenario.service is None


def in_other_mode_by_its_word(scenario, mode):
    """Let a hand change what the service says of its mode, though KServe can't convert it.

    KServe's webhook denies a canary in Knative mode; it is not there for this change.
    """

    def change(service):
        service["metadata"]["annotations"][ANNOTATION] = mode

    webhook, scenario.api.admit = scenario.api.admit, lambda obj: None
    scenario.api.edit(INFERENCE_SERVICE, *KEY, change)
    scenario.api.admit = webhook


@both_ways
@pytest.mark.parametrize("another_candidate", [False, True])
@pytest.mark.parametrize("changed_by_hand", [False, True])
def test_a_candidate_that_is_there_keeps_the_mode(began, other, another_candidate, changed_by_hand):
    """Its own candidate, or the one before it, which the new one has yet to replace."""
    scenario = at(5, mode=began)
    if changed_by_hand:
        in_other_mode_by_its_word(scenario, other)
    come_back(scenario, other, **({"candidate": candidate(3)} if another_candidate else {}))
    wait(scenario, 3 * LATE_WRITE_SECONDS)
    assert is_held(scenario)
    assert stored_mode(scenario) == began
    assert shares_in(scenario.service)[digest(2)] == 5
    in_other_mode_by_its_word(scenario, began)
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.until_end()
    assert shares_in(scenario.service) == {digest(1): 100}


@both_ways
def test_the_new_mode_is_stored_before_the_first_write_in_it(began, other):
    """Nothing else of the state changes with it, so it must be worth a write by itself."""
    scenario = Scenario(rollout(paused=True), first=True, mode=began)
    wait(scenario, 30)
    come_back(scenario, other, paused=False)
    wait(scenario, LATE_WRITE_SECONDS)
    assert stored_mode(scenario) == began
    _crash_after_the_first_write(scenario)
    with pytest.raises(Crash):
        wait(scenario, 60)
    assert mode_of(scenario.service) == stored_mode(scenario) == other
    scenario.restart()
    assert scenario.until_end() == "Promoted"


def _crash_after_the_first_write(scenario):
    check = scenario.api.after

    def after(call):
        check(call)
        if call.kind is INFERENCE_SERVICE and call.is_write:
            scenario.api.after = check
            raise Crash

    scenario.api.after = after


@both_ways
def test_a_candidate_that_another_rollout_left_is_replaced_in_the_mode_of_the_service(began, other):
    scenario = at(5, mode=other)
    scenario.api.delete(MODEL_ROLLOUT, *KEY)
    scenario.reconcile()
    scenario.api.create(rollout(3))
    scenario.edit(lambda obj: obj["spec"]["template"].update(deploymentMode=began))
    wait(scenario, 30)
    assert is_held(scenario)
    come_back(scenario, other)
    assert scenario.until_end() == "Promoted"
    assert digest_of(scenario.service["spec"]["predictor"]) == digest(3)
