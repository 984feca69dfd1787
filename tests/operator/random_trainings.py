"""One random TrainingRun: written, reconciled, edited and restored; its invariants."""

import copy

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.kube.api import TRAINING_RUN
from tests.operator.admission import admitted
from tests.operator.random_documents import changed
from tests.operator.random_object import RandomObject
from tests.operator.training_scenario import KEY, TrainingScenario, published

ENDED = ("Succeeded", "Failed", "Cancelled")


def compiled(models):
    """Return the pipeline of all four; no other is compiled."""
    if set(models) != set(MODELS):
        raise UsageError(f"There is no compiled pipeline for {', '.join(models)}.")
    return {"pipeline_spec": {"for": sorted(models)}}


class RandomTraining(RandomObject):
    """One run on a simulated Kubeflow."""

    def __init__(self, seed):
        super().__init__(seed)
        self.scenario = TrainingScenario()
        self.scenario.trainer.pipelines = compiled
        self.api = self.scenario.api
        found = self.api.at(TRAINING_RUN, *KEY)
        self.good = {key: found[key] for key in ("apiVersion", "kind", "spec")}
        self.good["metadata"] = {"namespace": KEY[0], "name": KEY[1]}

    def play(self):
        """Go through all of it; return whether it ended as a fresh one does."""
        document = self.good
        for _ in range(self.rng.integers(0, 4)):
            document = changed(document, self.rng)
        self._create_again(document)
        for _ in range(self.rng.integers(1, 6)):
            for _ in range(self.rng.integers(1, 3)):
                self.scenario.reconcile()
            self._edit()
        self._check_that_it_is_reported_once()
        if not self.put(self.good):
            self._create_again(self.good)
        return self._check_the_end()

    def _create_again(self, document):
        written = self.taken(document)
        if written is None:
            return
        self.api.delete(TRAINING_RUN, *KEY)
        self.api.create(written)

    def _edit(self):
        document = {**self.good, "spec": copy.deepcopy(self.spec)}
        if self.rng.random() < 0.1:
            document.pop("spec")
        elif self.rng.random() < 0.3 and isinstance(document["spec"], dict):
            name = str(self.rng.choice(["suspend", "cancel", "storagePrefix"]))
            document["spec"][name] = self.good["spec"].get(name, bool(self.rng.random() < 0.3))
        else:
            document = changed(document, self.rng)
        self.put(document)

    def edit(self, change):
        self.api.edit(TRAINING_RUN, *KEY, change)

    @property
    def spec(self):
        return self.api.at(TRAINING_RUN, *KEY).get("spec")

    def _stalled(self):
        conditions = {one["type"]: one for one in self.scenario.status.get("conditions", [])}
        stalled = conditions.get("Stalled", {"status": "False"})
        return stalled if stalled["status"] == "True" else None

    def _check_that_it_is_reported_once(self):
        """What can't be acted on ends in one condition, and nothing more is written."""
        _, rejection = admitted({**self.good, "spec": self.spec})
        requests = len(self.scenario.kubeflow.requests)
        self.scenario.reconcile()
        is_over = self.scenario.status["phase"] in ENDED
        if rejection and not is_over and not self.scenario.status.get("runId"):
            assert self._stalled(), rejection
        if is_over or not self._stalled():
            return
        version = self.api.version
        for _ in range(3):
            self.scenario.reconcile()
        assert self.api.version == version, "it was reported more than once"
        assert len(self.scenario.kubeflow.requests) == requests, "a rejected run was submitted"
        self.check_sentence(self._stalled()["message"])

    def _check_the_end(self):
        scenario = self.scenario
        scenario.reconcile()
        uid = self.api.at(TRAINING_RUN, *KEY)["metadata"]["uid"]
        mine = [
            request for request in scenario.kubeflow.requests if request.name.endswith(f".{uid}")
        ]
        if scenario.status["phase"] == "Cancelled":
            return False
        assert len(mine) == 1, "submitted, and once"
        run_id = f"run-{scenario.kubeflow.requests.index(mine[0]) + 1}"
        # As the spec was at the time of the submission.
        rolls_out = bool(mine[0].arguments["storage_prefix"])
        assert mine[0].arguments["rollout_namespace"] == (KEY[0] if rolls_out else "")
        if rolls_out:
            published(self.api.aside(), mine[0], *MODELS)
        scenario.kubeflow.end("approved", run_id=run_id)
        assert scenario.reconcile() is None
        assert scenario.status["phase"] == "Succeeded", scenario.status["reason"]
        assert scenario.status["verdict"] == "APPROVED"
        names = sorted(spec.kubernetes_name for spec in MODELS.values())
        assert scenario.status["rollouts"] == (names if rolls_out else [])
        assert self._stalled() is None
        version = self.api.version
        assert scenario.reconcile() is None
        assert self.api.version == version, "it has ended, and something was written"
        written = {call.kind for call in self.api.writes}
        assert written == {TRAINING_RUN}, "the operator writes no ModelRollout for a run"
        return True
