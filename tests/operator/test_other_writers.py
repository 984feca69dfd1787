"""A writer that keeps undoing the operator's writes is named, and not fought."""

import copy
import itertools

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE, MANAGER
from dwcp_ml.kube.kserve.objects import last_spec_writer
from dwcp_ml.operator.metrics import Metrics
from dwcp_ml.operator.other_writers import WriteHistory
from tests.operator.fake_servers import shares_in
from tests.operator.scenario import KEY, Scenario, at, candidate, digest, rollout

pytestmark = pytest.mark.slow

WRITER = "argocd-controller"


def managed(manager, at, **more):
    return {"manager": manager, "time": at, "fieldsV1": {"f:spec": {}}, **more}


class GitOps:
    """Restores the InferenceService as Git has it, at a fixed interval in seconds."""

    def __init__(self, scenario, seconds):
        self.scenario = scenario
        self.seconds = seconds
        self.desired = scenario.service["spec"]
        self.restored_at = scenario.time.now
        self.on = True

    def reconcile(self):
        now = self.scenario.time.now
        if self.on and now - self.restored_at >= self.seconds:
            self.restored_at = now
            self.scenario.api.edit(INFERENCE_SERVICE, *KEY, self._restore)
            self.scenario.settle()

    def _restore(self, service):
        service["spec"] = copy.deepcopy(self.desired)
        service["metadata"]["managedFields"] = [
            managed(MANAGER, "2026-01-01T00:00:09Z"),
            managed("kubectl", "2026-01-01T00:00:01Z"),
            managed(WRITER, "2026-01-01T00:00:08Z"),
        ]


def play(scenario, gitops, seconds, metrics=None):
    """Reconcile for this many seconds; return when the operator wrote to the InferenceService."""
    written, end = [], scenario.time.now + seconds
    while scenario.time.now < end:
        scenario.pass_time(10)
        gitops.reconcile()
        before = scenario.rules.writes["service"]
        result = scenario.operator.reconcile(KEY)
        if metrics is not None:
            metrics.reconciled(KEY, result)
        if scenario.rules.writes["service"] > before:
            written.append(scenario.time.now)
    return written


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
@pytest.mark.parametrize("seconds", [0, 180, 600])
def test_a_writer_that_restores_the_service_is_named_and_the_operator_writes_rarely(seconds, mode):
    scenario, metrics = Scenario(rollout(dwell=300), mode=mode), Metrics()
    gitops = GitOps(scenario, seconds)
    early = play(scenario, gitops, 60 + 4 * seconds, metrics)
    assert scenario.conditions["Stalled"]["status"] == "True"
    assert scenario.status["reason"] == "RevertedByAnotherWriter"
    assert WRITER in scenario.status["message"]
    assert 'rollouts_stalled{reason="RevertedByAnotherWriter"} 1.0' in metrics.page().decode()
    written = [early[-1], *play(scenario, gitops, 7200, metrics)]
    assert 3 <= len(written) <= 8
    gaps = [after - before for before, after in itertools.pairwise(written)]
    assert all(gap >= 300 for gap in gaps)
    assert gaps == sorted(gaps)
    assert gaps[-1] >= 1200
    assert sum(each.reason == "RevertedByAnotherWriter" for each in scenario.events) <= 8
    assert scenario.conditions["Ready"]["status"] == "False"
    assert scenario.is_stalled
    gitops.on = False
    assert scenario.until_end(rounds=600) == "Promoted"
    play(scenario, gitops, 1300)
    assert not scenario.is_stalled
    assert scenario.status["reason"] == "Promoted"


def test_the_condition_does_not_change_while_it_lasts():
    scenario = Scenario()
    gitops = GitOps(scenario, 180)
    play(scenario, gitops, 900)
    since = scenario.conditions["Stalled"]["lastTransitionTime"]
    play(scenario, gitops, 3600)
    assert scenario.conditions["Stalled"]["lastTransitionTime"] == since


def test_an_abort_is_written_at_once_while_other_writes_wait():
    scenario = at(5)
    gitops = GitOps(scenario, 0)
    gitops.desired["canary"][0]["trafficPercent"] = 1
    play(scenario, gitops, 3600)
    assert scenario.status["reason"] == "RevertedByAnotherWriter"
    assert shares_in(scenario.service)[digest(2)] in (1, 5)
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    scenario.operator.reconcile(KEY)
    assert shares_in(scenario.service)[digest(2)] == 0


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_roll_back_that_is_undone_is_tried_at_least_every_minute(mode):
    scenario = at(5, mode=mode)
    gitops = GitOps(scenario, 0)
    scenario.edit(lambda obj: obj["spec"].update(abort=True))
    written = play(scenario, gitops, 1800)
    gaps = [after - before for before, after in itertools.pairwise(written)]
    assert max(gaps) == 60
    assert gaps[-1] == 60
    assert scenario.status["reason"] == "RevertedByAnotherWriter"
    assert WRITER in scenario.status["message"]
    gitops.on = False
    assert scenario.until_end() == "RolledBack"
    play(scenario, gitops, 300)
    assert scenario.status["reason"] == "Aborted"


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_a_promotion_that_another_writer_reverts_is_said_and_not_fought(mode):
    scenario, metrics = Scenario(mode=mode), Metrics()
    gitops = GitOps(scenario, 0)
    gitops.on = False
    scenario.until_end()
    promoted = scenario.service["spec"]
    gitops.on = True
    written = play(scenario, gitops, 20, metrics)
    gitops.on = False
    written += play(scenario, gitops, 3600, metrics)
    assert written == []
    assert digest(2) not in shares_in(scenario.service)
    values = {name: each["status"] for name, each in scenario.conditions.items()}
    assert values == {
        "Ready": "False", "Reconciling": "False", "Stalled": "True", "Promoted": "False",
    }  # fmt: skip
    assert scenario.status["reason"] == "PromotionReverted"
    assert all(word in scenario.status["message"] for word in ("v2", "v1", WRITER))
    assert [each.reason for each in scenario.events if each.warning] == ["PromotionReverted"]
    assert 'rollouts_stalled{reason="PromotionReverted"} 1.0' in metrics.page().decode()
    scenario.api.edit(INFERENCE_SERVICE, *KEY, lambda service: service.update(spec=promoted))
    scenario.reconcile()
    scenario.reconcile()
    assert scenario.conditions["Ready"]["status"] == "True"
    assert scenario.conditions["Promoted"]["status"] == "True"


def test_after_a_reverted_promotion_the_next_candidate_is_rolled_out():
    scenario = Scenario()
    gitops = GitOps(scenario, 0)
    gitops.on = False
    scenario.until_end()
    gitops.on = True
    play(scenario, gitops, 20)
    gitops.on = False
    scenario.edit(lambda obj: obj["spec"].update(candidate=candidate(3)))
    scenario.reconcile()
    assert scenario.until_end() == "Promoted"
    assert not scenario.is_stalled, scenario.status["message"]
    assert scenario.final[1] == digest(3)


def test_a_writer_that_deletes_what_the_operator_creates_is_not_fought():
    """For instance a GitOps controller that prunes what is not in Git."""
    scenario = Scenario(first=True)
    created = []
    for _ in range(180):
        if scenario.service is not None:
            created.append(scenario.time.now)
            scenario.api.delete(INFERENCE_SERVICE, *KEY)
        scenario.reconcile()
    assert scenario.status["reason"] == "RevertedByAnotherWriter"
    assert "another writer" in scenario.status["message"]
    assert 4 <= len(created) <= 8
    assert scenario.until_end(rounds=400) == "Promoted"


def test_edits_that_undo_nothing_are_no_reverts():
    scenario = at(5)

    def annotate(service):
        service["spec"]["predictor"]["timeout"] = service["spec"]["predictor"].get("timeout", 0) + 1

    for _ in range(400):
        scenario.api.edit(INFERENCE_SERVICE, *KEY, annotate)
        scenario.reconcile()
        assert scenario.status["reason"] != "RevertedByAnotherWriter"


def test_a_read_that_is_behind_is_no_revert():
    history = WriteHistory()
    old = {"metadata": {"generation": 1}, "spec": {"predictor": {}}}
    for moment in range(10):
        new = {"metadata": {"generation": 2}, "spec": {"predictor": {"name": "v2"}}}
        history.wrote("text", new, float(moment))
        history.read(old, float(moment))
    assert history.cause(10.0) is None


def test_the_last_writer_is_the_newest_other_manager_of_the_spec():
    fields = [
        managed(MANAGER, "2026-01-03T00:00:00Z"),
        managed("kserve", "2026-01-02T00:00:00Z", subresource="status"),
        {"manager": "labels", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:metadata": {}}},
        managed("flux", "2026-01-01T00:00:00Z"),
        managed("kubectl", "2025-01-01T00:00:00Z"),
    ]
    assert last_spec_writer({"metadata": {"managedFields": fields}}) == "flux"
    assert last_spec_writer({"metadata": {}}) == ""
