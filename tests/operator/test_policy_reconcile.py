"""A rollout that is not allowed is never deployed, and can be aborted at every step."""

import pytest

from dwcp_ml.operator.policy import Policy
from tests.operator.fake_servers import workload_of
from tests.operator.scenario import SHARES, Scenario, at, digest, rollout, stalled

pytestmark = pytest.mark.slow


def with_account(one):
    one["spec"]["template"]["predictor"]["serviceAccountName"] = "admin"


def not_allowed():
    made = rollout()
    with_account(made)
    return made


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("first", [True, False])
def test_it_is_never_deployed_and_goes_on_once_it_is_allowed(mode, first):
    scenario = Scenario(not_allowed(), mode=mode, first=first)
    before = scenario.service
    assert stalled(scenario)["Stalled"]["reason"] == "TemplateNotAllowed"
    assert scenario.service == before
    scenario.operator.policy = Policy(service_accounts=("admin",))
    assert scenario.until_end() == "Promoted"
    predictor = scenario.service["spec"]["predictor"]
    assert predictor["serviceAccountName"] == "admin"
    assert predictor["automountServiceAccountToken"] is False


def test_an_address_that_is_not_allowed_is_never_deployed():
    made = rollout()
    made["spec"]["candidate"]["storageUri"] = "https://169.254.169.254/latest/v2"
    scenario = Scenario(made)
    before = scenario.service
    assert stalled(scenario)["Stalled"]["reason"] == "AddressNotAllowed"
    assert scenario.service == before


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("share", SHARES)
def test_its_weight_does_not_rise_and_it_can_be_aborted(share, mode):
    scenario = at(share, mode=mode)
    scenario.edit(with_account)
    scenario.rules.weights.clear()
    for _ in range(40):
        scenario.reconcile()
    assert scenario.rules.weights == []
    assert "serviceAccountName" not in str(scenario.service)
    if share < 100:
        assert scenario.conditions["Stalled"]["reason"] == "TemplateNotAllowed"
    scenario.edit(lambda one: one["spec"].update(abort=True))
    assert scenario.until_end() == "RolledBack"
    assert scenario.final[1:3] == (digest(1), [])
    assert "serviceAccountName" not in str(scenario.service)
    assert scenario.kserve.broken == []


def test_a_bad_candidate_is_rolled_back_all_the_same():
    scenario = at(25)
    scenario.edit(with_account)
    scenario.reconcile()
    scenario.kserve.crashes[workload_of(2)] = 5
    assert scenario.until_end() == "RolledBack"
    assert scenario.final[1] == digest(1)
