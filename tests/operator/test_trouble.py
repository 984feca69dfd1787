"""Trouble blocks the way up, never the way back: each kind of it, in both modes.

An abort writes 0 in the next reconciliation. A candidate that fails everything is rolled back
within 60 s of its first scraped failure, at 1 % of 100 requests/s, in virtual time.
"""

import json

import pytest

from dwcp_ml.kube.api import (
    DEPLOYMENT,
    HTTP_ROUTE,
    INFERENCE_SERVICE,
    KNATIVE_SERVICE,
    MODEL_ROLLOUT,
    POD,
    AccessDenied,
    Conflict,
    Invalid,
)
from dwcp_ml.operator.comparison import Compared
from tests.operator.fake_servers import shares_in, workload_of
from tests.operator.scenario import BROAD, KEY, at, digest, rollout

pytestmark = pytest.mark.slow


def edit_spec(**fields):
    return lambda scenario: scenario.edit(lambda obj: obj["spec"].update(fields))


def edit_service(change):
    return lambda scenario: scenario.api.edit(INFERENCE_SERVICE, *KEY, change)


def no_source(scenario):
    analysis = {**scenario.resource["spec"]["analysis"], "groundTruth": {"required": True}}
    scenario.edit(lambda obj: obj["spec"].update(analysis=analysis))


def broken_rule(scenario):
    """The object breaks a rule that a newer operator has; the API server let it in before."""
    scenario.edit(lambda obj: obj["spec"]["template"].update(sidecars=[{"name": "x"}]))


def edit_state(change):
    return lambda scenario: scenario.edit_status(
        lambda status: status.update(state=change(status["state"]))
    )


def route_not_accepted(scenario):
    """What carries the traffic out reports that it does not, and stays so."""
    scenario.view = _NotAccepted(scenario.api)


class _NotAccepted:
    def __init__(self, api):
        self._api = api

    def __getattr__(self, name):
        return getattr(self._api, name)

    def get(self, kind, *place):
        found = self._api.get(kind, *place)
        if found is not None and kind == HTTP_ROUTE:
            return {**found, "status": {}}
        if found is not None and kind == KNATIVE_SERVICE:
            conditions = [{"type": "RoutesReady", "status": "False"}]
            return {**found, "status": {**found["status"], "conditions": conditions}}
        return found


def set_broken(arm):
    return lambda scenario: scenario.fleet.broken.update({arm: "no pod answers."})


def set_incomplete(arm):
    return lambda scenario: scenario.fleet.incomplete.update({arm: "10.0.0.9: no answer."})


def other_buckets(scenario):
    scenario.fleet.edges["candidate"] = (0.02, 0.2)


def not_ready(scenario):
    scenario.kserve.unready.add(workload_of(2))


def forbidden(*calls):
    """The API server forbids each of these (verb, kind)."""

    def before(call):
        if (call.verb, call.kind) in calls:
            raise AccessDenied(f"The API server does not {call.verb} {call.kind.plural}.")

    return lambda scenario: setattr(scenario.api, "before", before)


def finalizer_forbidden(scenario):
    forbidden(("replace", MODEL_ROLLOUT))(scenario)
    scenario.edit(lambda obj: obj["spec"].update(deletionPolicy="Restore"))


class FailingComparison:
    """A fake of the comparison that fails in a way that nobody has thought of."""

    def read(self, *_):
        raise RuntimeError("no.")


def comparison_fails(scenario):
    scenario.fleet.requests_port = 8082
    scenario.operator.comparison = FailingComparison()


TROUBLE = {
    "none": lambda scenario: None,
    "a test without a data source": no_source,
    "an object that breaks a newer rule": broken_rule,
    "a field of another type": edit_spec(watchSeconds="long"),
    "a state that can't be read": edit_state(
        lambda state: state.replace('"phase":"Progressing"', '"phase":"Lost"')
    ),
    "a state of a newer release": edit_state(
        lambda state: state.replace('"version":1', '"version":2,"mood":"good"', 1)
    ),
    "a transformer": edit_service(
        lambda obj: obj["spec"].update(transformer={"containers": [{"name": "t"}]})
    ),
    "a cluster-local service": edit_service(
        lambda obj: (
            obj["metadata"]
            .setdefault("labels", {})
            .update({"networking.kserve.io/visibility": "cluster-local"})
        )
    ),
    "a gateway that accepts no route": route_not_accepted,
    "a replica of the candidate without metrics": set_incomplete("candidate"),
    "a replica of the stable without metrics": set_incomplete("stable"),
    "the stable without metrics": set_broken("stable"),
    "other latency buckets": other_buckets,
    "a candidate that lost its readiness": not_ready,
    "a paused rollout": edit_spec(paused=True),
    "routes that may not be read": forbidden(("get", HTTP_ROUTE)),
    "pods that may not be listed": forbidden(("list", POD)),
    "Deployments that may not be read": forbidden(("get", DEPLOYMENT)),
    "a finalizer that may not be set": finalizer_forbidden,
    "a comparison that fails": comparison_fails,
}


def begin(name, mode):
    analysis = {**BROAD, "errorRate": {"margin": 0.01}}
    scenario = at(1, resource=rollout(requests=5000, analysis=analysis), mode=mode)
    scenario.fleet.requests_per_second = 100.0
    for _ in range(30):
        scenario.reconcile()
    assert scenario.fleet.routed() == {digest(1): 99, digest(2): 1}
    TROUBLE[name](scenario)
    return scenario


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("name", TROUBLE)
def test_an_abort_writes_0_in_the_next_reconciliation(name, mode):
    scenario = begin(name, mode)
    scenario.reconcile()
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.operator.reconcile(KEY)
    assert shares_in(scenario.service).get(digest(2), 0) == 0


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_an_abort_waits_for_no_comparison(mode):
    """It takes seconds where a pod hangs, and the candidate has traffic meanwhile."""
    scenario = begin("a comparison that fails", mode)
    asked = []
    scenario.operator.comparison.read = lambda *_: asked.append(1) or Compared()
    scenario.reconcile()
    before = len(asked)
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    for _ in range(10):
        scenario.reconcile()
    assert (scenario.phase, before, len(asked)) == ("RolledBack", 1, 1)


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("name", TROUBLE)
def test_a_candidate_that_fails_everything_is_rolled_back_within_a_minute(name, mode):
    scenario = begin(name, mode)
    scenario.fleet.errors[digest(2)] = 1.0
    scenario.reconcile()  # the first failures are scraped
    for _ in range(6):
        scenario.reconcile()
    assert shares_in(scenario.service).get(digest(2), 0) == 0, scenario.status["reason"]


NO_TROUBLE = {"none", "a state of a newer release", "a comparison that fails"}
"""The last blocks the shadow step; at the steps after it the test is not required."""

ONLY_IN_STANDARD_MODE = {
    "a transformer", "a cluster-local service", "a candidate that lost its readiness",
    "Deployments that may not be read", "routes that may not be read",
}  # fmt: skip
"""Knative splits the traffic of these, and a ready revision stays ready."""

NOT_STALLED = {"a paused rollout", "a candidate that lost its readiness"}
"""The second only after ten minutes: KServe has already taken it out of the route."""


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("name", [name for name in TROUBLE if name not in NO_TROUBLE])
def test_the_weight_does_not_rise(name, mode):
    if mode == "Knative" and name in ONLY_IN_STANDARD_MODE:
        return
    scenario = begin(name, mode)
    scenario.fleet.requests_per_second = 10_000.0
    for _ in range(15):
        scenario.reconcile()
    assert scenario.fleet.routed().get(digest(2), 0) <= 1
    assert scenario.is_stalled or name in NOT_STALLED


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("error", [AccessDenied, Invalid])
def test_an_abort_needs_no_status(error, mode):
    """A CRD that is older than the operator, say, rejects each status that it writes."""
    scenario = begin("none", mode)
    scenario.view = _NoStatus(scenario.api, error("rejected"))
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.reconcile()
    assert shares_in(scenario.service).get(digest(2), 0) == 0


class _NoStatus:
    def __init__(self, api, error):
        self._api, self._error = api, error

    def __getattr__(self, name):
        return getattr(self._api, name)

    def replace(self, obj, *, status=False):
        if status:
            raise self._error
        return self._api.replace(obj)


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("deleted", [False, True])
def test_an_object_that_was_never_valid_here_is_aborted_or_restored(deleted, mode):
    """Its state is of a release that did not store the spec, and the spec breaks a newer rule."""
    scenario = begin("none", mode)
    if deleted:
        scenario.edit(lambda obj: obj["spec"].update(deletionPolicy="Restore"))
        scenario.reconcile()
    scenario.edit_status(lambda status: status.pop("state"))
    broken_rule(scenario)
    scenario.restart()
    if deleted:
        scenario.api.aside().delete(MODEL_ROLLOUT, *KEY)
    else:
        scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.operator.reconcile(KEY)
    assert shares_in(scenario.service).get(digest(2), 0) == 0
    if deleted:
        for _ in range(5):
            scenario.reconcile()
        assert scenario.resource is None
        assert digest(2) not in scenario.fleet.routed()


def _in_mode(mode):
    return lambda obj: obj["spec"]["template"].update(deploymentMode=mode)


def test_a_mode_that_is_not_the_services_promotes_nothing():
    """Read as Standard, the predictor of a Knative split is the stable: it is the candidate.

    The CRD's rule forbids the change; one that is older than the rule, or a new object, does not.
    """
    scenario = begin("none", "Knative")
    live = scenario.fleet.routed()[digest(2)]
    assert 0 < live < 100
    scenario.edit(_in_mode("Standard"))
    for _ in range(3):
        scenario.reconcile()
    assert scenario.conditions["Stalled"]["reason"] == "SplitNotSupported"
    scenario.edit(_in_mode("Knative"))
    scenario.reconcile()
    assert shares_in(scenario.service)[digest(2)] == live
    assert scenario.phase == "Progressing"


class _LosesTheFirstWrite:
    """Another writer comes first, once, at the InferenceService."""

    def __init__(self, api):
        self._api, self._left = api, 1

    def __getattr__(self, name):
        return getattr(self._api, name)

    def replace(self, obj, *, status=False):
        if obj["kind"] == "InferenceService" and self._left:
            self._left = 0
            raise Conflict("somebody else wrote it")
        return self._api.replace(obj, status=status)


@pytest.mark.parametrize("loses_a_write", [False, True])
@pytest.mark.parametrize(("mode", "other"), [("Standard", "Knative"), ("Knative", "Standard")])
def test_an_abort_goes_through_in_a_mode_that_is_not_the_services(mode, other, loses_a_write):
    scenario = begin("none", mode)
    if loses_a_write:
        scenario.view = _LosesTheFirstWrite(scenario.api)
    scenario.edit(_in_mode(other))
    scenario.reconcile()
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    for _ in range(30):
        scenario.reconcile()
    assert shares_in(scenario.service) == scenario.fleet.routed() == {digest(1): 100}
    assert scenario.phase == "RolledBack"


@pytest.mark.parametrize("aborts", [False, True])
@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_state_without_a_mode_goes_on_in_that_of_the_object(mode, aborts):
    """A release that did not store it wrote the state last."""
    scenario = begin("none", mode)

    def without(status):
        state = json.loads(status["state"])
        del state["mode"]
        status["state"] = json.dumps(state)

    scenario.edit_status(without)
    scenario.restart()
    if aborts:
        scenario.edit(lambda obj: obj["spec"].update(abort=True))
    for _ in range(20):
        scenario.reconcile()
    assert scenario.phase == ("RolledBack" if aborts else "Progressing")
    assert scenario.status["reason"] != "SplitNotSupported"
