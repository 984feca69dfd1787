"""A candidate is a bundle and what serves it: the server's image goes up step by step, too."""

import json

import pytest

from dwcp_ml.kube.api import DEPLOYMENT, INFERENCE_SERVICE
from dwcp_ml.operator.policy import Policy
from tests.matrix import diagonal, few
from tests.operator.fake_servers import (
    NAME,
    NAMESPACE,
    PERCENT,
    digest_of,
    identity,
    shares_in,
)
from tests.operator.rules import state_of
from tests.operator.scenario import SHARES, Scenario, candidate, digest, rollout, stalled

MODES = ("Standard", "Knative")
OLD, NEW, NEWER = "dwcp-ml-server", "dwcp-ml-60303ae2", "dwcp-ml-9f86d081"
MODEL = {"modelFormat": {"name": "dwcp-ml-bundle"}, "runtime": OLD, "protocolVersion": "v1"}


def resource(number=2, runtime=None, **spec):
    made = rollout(number, **spec)
    made["spec"]["template"]["predictor"]["model"] = dict(MODEL)
    made["spec"]["candidate"] = in_runtime(made["spec"]["candidate"], runtime)
    return made


def in_runtime(asked, runtime):
    """Return a candidate in a runtime of its own, and at an address of its own, as KServe needs."""
    if runtime is None:
        return asked
    return asked | {"runtime": runtime, "storageUri": f"{asked['storageUri']}/{runtime}"}


def started(mode, number=2, runtime=None, *, allowed=(OLD, NEW, NEWER), **how):
    scenario = Scenario(resource(number, runtime), mode=mode, **how)
    scenario.operator.policy = Policy(runtimes=allowed)
    return scenario


def promoted(mode):
    """Return a rollout whose bundle 2 is the stable, in the runtime of the template."""
    scenario = started(mode)
    assert scenario.until_end() == "Promoted"
    scenario.rules.weights.clear()
    return scenario


def ask(scenario, number=2, runtime=None, **fields):
    asked = in_runtime(candidate(number), runtime)
    scenario.edit(lambda one: one["spec"].update(candidate=asked, **fields))


def predictors_of(service):
    """Return revision -> predictor, also of a stable that is only recorded."""
    spec = service["spec"]
    found = [spec["predictor"], *(entry["predictor"] for entry in spec.get("canary") or [])]
    recorded = spec["predictor"].get("annotations", {}).get("ml.dwcp.io/stable")
    if recorded and PERCENT in spec["predictor"]:
        found.append(json.loads(recorded))
    return {digest_of(one): one for one in found}


def runtimes_of(service):
    return {key: one["model"].get("runtime") for key, one in predictors_of(service).items()}


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_another_runtime_of_the_same_bundle_goes_through_every_step(mode):
    scenario = promoted(mode)
    ask(scenario, runtime=NEW)
    beside = set()
    for _ in range(300):
        scenario.reconcile()
        runtimes = runtimes_of(scenario.service)
        beside.update(runtimes.items())
        if scenario.phase == "Promoted" and scenario.status["candidate"].get("runtime"):
            break
    assert scenario.phase == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert beside == {(digest(2), OLD), (identity(digest(2), NEW), NEW)}, "each keeps its own"
    assert scenario.service["spec"]["predictor"]["model"]["runtime"] == NEW
    assert shares_in(scenario.service) == {identity(digest(2), NEW): 100}
    assert scenario.status["candidate"]["runtime"] == NEW
    assert scenario.status["stable"].get("runtime") is None
    assert scenario.kserve.broken == []


@pytest.mark.parametrize(("share", "mode"), diagonal(SHARES, MODES))
def test_a_bad_runtime_is_rolled_back_to_that_of_the_stable(mode, share):
    scenario = promoted(mode)
    before = scenario.service["spec"]["predictor"]
    bad = identity(digest(2), NEW)
    ask(scenario, runtime=NEW)
    for _ in range(200):
        scenario.reconcile()
        if scenario.fleet.routed().get(bad) == share:
            break
    scenario.fleet.errors[bad] = 1.0
    assert scenario.until_end() == "RolledBack"
    after = scenario.service["spec"]["predictor"]
    assert after["model"] == before["model"]
    assert shares_in(scenario.service) == {digest(2): 100}
    assert scenario.status["blockedDigests"] == [f"sha256:{bad}"]
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_what_is_blocked_is_the_bundle_in_that_runtime_only(mode):
    scenario = promoted(mode)
    bad = identity(digest(2), NEW)
    scenario.fleet.errors[bad] = 1.0
    ask(scenario, runtime=NEW)
    assert scenario.until("RolledBack")
    ask(scenario, runtime=NEWER)
    scenario.until("Progressing")
    assert scenario.until_end() == "Promoted"
    assert runtimes_of(scenario.service)[identity(digest(2), NEWER)] == NEWER
    ask(scenario, runtime=NEW)
    scenario.reconcile()
    assert scenario.status["reason"] == "PreviouslyRolledBack"
    assert scenario.until_end() == "RolledBack"
    assert runtimes_of(scenario.service) == {identity(digest(2), NEWER): NEWER}


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_a_retry_is_about_the_bundle_in_its_runtime(mode):
    scenario = promoted(mode)
    bad = identity(digest(2), NEW)
    scenario.fleet.errors[bad] = 1.0
    ask(scenario, runtime=NEW)
    assert scenario.until("RolledBack")
    scenario.fleet.errors[bad] = 0.0
    retry = {"digest": f"sha256:{digest(2)}", "reason": "the node was broken"}
    scenario.edit(lambda one: one["spec"].update(retry=retry))
    assert scenario.until_end() == "Promoted"
    assert [one["digest"] for one in scenario.status["retries"]] == [f"sha256:{bad}"]


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_another_runtime_in_the_middle_starts_over(mode):
    scenario = promoted(mode)
    ask(scenario, runtime=NEW)
    while scenario.fleet.routed().get(identity(digest(2), NEW)) != 25:
        scenario.reconcile()
    scenario.rules.weights.clear()
    ask(scenario, runtime=NEWER)
    scenario.reconcile()
    assert state_of(scenario.resource)["rollout"]["exposed_requests"] == 0
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert runtimes_of(scenario.service)[identity(digest(2), NEWER)] == NEWER
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_bundle_and_runtime_can_change_together(mode):
    scenario = promoted(mode)
    ask(scenario, 3, NEW)
    scenario.until("Progressing")
    assert scenario.until_end() == "Promoted"
    assert runtimes_of(scenario.service)[identity(digest(3), NEW)] == NEW


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_the_next_candidate_does_not_inherit_the_runtime(mode):
    """KServe copies what a canary lacks from the stable: a canary lacks nothing."""
    scenario = started(mode, runtime=NEW)
    assert scenario.until_end() == "Promoted"
    ask(scenario, 3)
    scenario.until("Progressing")
    runtimes = runtimes_of(scenario.service)
    assert runtimes == {identity(digest(2), NEW): NEW, digest(3): OLD}
    for deployment in scenario.api.list(DEPLOYMENT, NAMESPACE):
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        expected = NEW if annotations["ml.dwcp.io/version"] == "v2" else "-"
        assert annotations["ml.dwcp.io/runtime"] == expected
    assert scenario.until_end() == "Promoted"
    assert scenario.service["spec"]["predictor"]["model"]["runtime"] == OLD


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_back_to_the_runtime_of_the_template_is_a_rollout(mode):
    scenario = started(mode, runtime=NEW)
    assert scenario.until_end() == "Promoted"
    scenario.rules.weights.clear()
    ask(scenario)
    scenario.until("Progressing")
    assert scenario.until_end() == "Promoted"
    assert scenario.rules.weights == list(SHARES)
    assert runtimes_of(scenario.service)[digest(2)] == OLD


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_the_first_deployment_has_its_runtime(mode):
    scenario = started(mode, runtime=NEW, first=True)
    assert scenario.until_end() == "Promoted"
    assert runtimes_of(scenario.service) == {identity(digest(2), NEW): NEW}


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_a_bundle_that_was_there_before_can_get_another_runtime(mode):
    """Its predictor has no annotation of a runtime, and is restored without one."""
    scenario = started(mode, number=1, runtime=NEW)
    while scenario.fleet.routed().get(identity(digest(1), NEW)) != 5:
        scenario.reconcile()
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert shares_in(scenario.service) == {digest(1): 100}
    assert scenario.fleet.routed() == {digest(1): 100}
    assert "runtime" not in scenario.service["spec"]["predictor"]["model"]
    assert scenario.kserve.broken == []


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_a_runtime_that_is_not_allowed_is_not_deployed(mode):
    scenario = started(mode, runtime=NEW, allowed=(OLD,))
    scenario.reconcile()
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "RuntimeNotAllowed"
    assert "spec.candidate.runtime" in conditions["Stalled"]["message"]
    assert digest(2) not in str(scenario.service["spec"])
    scenario.operator.policy = Policy(runtimes=(OLD, NEW))
    assert scenario.until_end() == "Promoted"


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_a_runtime_that_is_no_longer_allowed_is_rolled_back_all_the_same(mode):
    scenario = promoted(mode)
    bad = identity(digest(2), NEW)
    ask(scenario, runtime=NEW)
    while scenario.fleet.routed().get(bad) != 25:
        scenario.reconcile()
    scenario.operator.policy = Policy(runtimes=(OLD,))
    scenario.fleet.errors[bad] = 1.0
    assert scenario.until_end() == "RolledBack"
    assert shares_in(scenario.service) == {digest(2): 100}


@pytest.mark.parametrize("mode", few(MODES, "Standard"))
def test_what_an_older_operator_promoted_is_left_alone(mode):
    """Neither its state nor its predictor names a runtime."""
    scenario = promoted(mode)

    def older_state(status):
        state = state_of({"status": status})
        for revision in (state["rollout"]["revision"], state["stable"]):
            del revision["runtime"]
        del state["accepted"]["candidate"]["runtime"]
        status["state"] = json.dumps(state)

    def older_service(service):
        del service["spec"]["predictor"]["annotations"]["ml.dwcp.io/runtime"]

    scenario.edit_status(older_state)
    scenario.api.edit(INFERENCE_SERVICE, NAMESPACE, NAME, older_service)
    scenario.restart()
    scenario.operator.policy = Policy(runtimes=(OLD, NEW))
    before = scenario.service["metadata"]["generation"]
    for _ in range(5):
        scenario.reconcile()
    assert scenario.phase == "Promoted"
    assert scenario.service["metadata"]["generation"] == before
    ask(scenario, runtime=NEW)
    scenario.until("Progressing")
    assert scenario.until_end() == "Promoted"
    assert runtimes_of(scenario.service)[identity(digest(2), NEW)] == NEW


def test_the_runtime_of_the_template_is_no_other_candidate():
    """Naming it must not unblock what was rolled back in it."""
    scenario = started("Standard")
    scenario.fleet.errors[digest(2)] = 1.0
    assert scenario.until_end() == "RolledBack"
    scenario.rules.weights.clear()
    ask(scenario, runtime=OLD)
    for _ in range(20):
        scenario.reconcile()
    assert scenario.phase == "RolledBack"
    assert scenario.rules.weights == []


def test_the_same_bundle_in_another_runtime_needs_another_address_in_standard_mode():
    """KServe lets no predictor take another name without another address."""
    scenario = promoted("Standard")
    asked = candidate(2) | {"runtime": NEW}
    scenario.edit(lambda one: one["spec"].update(candidate=asked))
    conditions = stalled(scenario)
    assert conditions["Stalled"]["reason"] == "SplitNotSupported"
    assert "address of the stable" in conditions["Stalled"]["message"]
    assert scenario.rules.weights == []
