"""One random ModelRollout: written, reconciled, edited, restored, and what must be true of it."""

import copy
import functools

from dwcp_ml.kube.api import MODEL_ROLLOUT
from tests.operator.admission import admitted
from tests.operator.fake_servers import stable_in
from tests.operator.faulty import FaultyScenario, short
from tests.operator.random_documents import changed
from tests.operator.random_object import RandomObject
from tests.operator.rules import state_of
from tests.operator.scenario import KEY, digest

ENDED = ("Promoted", "RolledBack")


def accepted_by_kserve(obj):
    """Return why KServe's admission rejects an object; ``None`` if it does not.

    One rule stands for all that Kubernetes has about combinations of fields of a pod.
    """
    if obj["kind"] != "InferenceService":
        return None
    spec = obj["spec"]
    for predictor in (spec["predictor"], *(one["predictor"] for one in spec.get("canary") or [])):
        for toleration in predictor.get("tolerations", []):
            if toleration.get("operator") == "Exists" and toleration.get("value"):
                return "spec.predictor.tolerations: value must be empty when `operator` is 'Exists'"
    return None


class RandomRollout(RandomObject):
    """One run on a fake cluster."""

    def __init__(self, seed):
        super().__init__(seed)
        self.mode = "Knative" if self.rng.random() < 0.25 else "Standard"
        self.first = bool(self.rng.random() < 0.2)
        self.scenario = FaultyScenario(short(), mode=self.mode, first=self.first)
        self.scenario.api.admit = accepted_by_kserve
        found = self.scenario.resource
        self.good = {key: found[key] for key in ("apiVersion", "kind", "metadata", "spec")}
        self.good["metadata"] = {"namespace": KEY[0], "name": KEY[1]}
        self.asked = []

    def play(self):
        """Go through all of it; return whether it was restored to where a fresh one ends."""
        document = self.good
        for _ in range(self.rng.integers(0, 4)):
            document = changed(document, self.rng)
        self._write_anew(document)
        for _ in range(self.rng.integers(1, 6)):
            self._reconcile_times(int(self.rng.integers(1, 5)))
            self._edit()
        self._reconcile_times(4)
        self._check_that_trouble_is_said_once()
        self._restore()
        return self._check_the_end()

    def _write_anew(self, document):
        written = self.taken(document)
        if written is None:
            return
        self.scenario.api.delete(MODEL_ROLLOUT, *KEY)
        if self.scenario.resource is not None:  # a finalizer holds it: a person takes it out
            self.scenario.edit(lambda one: one["metadata"].update(finalizers=[]))
        self.scenario.rules.blocked.clear()
        self.scenario.api.create(written)
        self._note_what_is_asked()

    def _edit(self):
        document = {**self.good, "spec": copy.deepcopy(self.spec)}
        chance = self.rng.random()
        if chance < 0.1:
            document.pop("spec")
        elif chance < 0.3 and isinstance(document["spec"], dict):
            name = str(self.rng.choice([*self.good["spec"], *document["spec"]]))
            document["spec"].pop(name, None)
            if name in self.good["spec"]:
                document["spec"][name] = copy.deepcopy(self.good["spec"][name])
        else:
            document = changed(document, self.rng)
        self.put(document)

    def put(self, document):
        was_taken = super().put(document)
        if was_taken:
            self._note_what_is_asked()
        return was_taken

    @property
    def spec(self):
        return self.scenario.resource.get("spec")

    def edit(self, change):
        self.scenario.edit(change)

    def _note_what_is_asked(self):
        """Note how a bundle is to be deployed, and where it is."""
        made, _ = admitted({**self.good, "spec": self.spec})
        spec = made.get("spec")
        known = isinstance(spec, dict) and isinstance(spec.get("candidate"), dict)
        if not known:
            self.asked.append(None)
            return
        # The model's name stands in the arguments of its servers.
        uri = spec["candidate"].get("storageUri")
        self.asked.append((spec.get("template"), uri, spec.get("model")))

    def _reconcile_times(self, times):
        for _ in range(times):
            self._reconcile_once(float(self.rng.choice([1, 10, 30])))

    def _reconcile_once(self, seconds=10.0):
        """Look once; nothing is broken here, so an error is what nobody is told of."""
        self.scenario.pass_time(seconds)
        return self.scenario.operator.reconcile(KEY)

    def _check_that_trouble_is_said_once(self):
        """What can't be acted on ends in one condition, and nothing more is written."""
        scenario = self.scenario
        _, told = admitted({**self.good, "spec": self.spec})
        result = self._reconcile_once()
        if told:
            assert result.stalled, told
            assert scenario.is_stalled, told
        if not result.stalled:
            return
        before, service = scenario.rules.writes["status"], scenario.service
        again = [self._reconcile_once(seconds) for seconds in (10, 100, 10)]
        if any(one.stalled != result.stalled for one in again):
            return
        assert scenario.rules.writes["status"] == before, f"said more than once: {result.stalled}"
        assert scenario.service == service, result.stalled
        assert scenario.is_stalled
        self.check_sentence(scenario.conditions["Stalled"]["message"])

    def _restore(self):
        # What has traffic in Knative mode, or is the stable already, is left as it is.
        service = self.scenario.service
        is_stable = service is not None and stable_in(service) == digest(2)
        self.is_exact = self.mode == "Standard" and not is_stable
        good = copy.deepcopy(self.good)
        if not self.put(good):
            self._write_anew(good)  # what can't be changed needs another object

    def _check_the_end(self):
        scenario = self.scenario
        for _ in range(150):
            self._reconcile_once()
            if (
                scenario.phase in ENDED
                and scenario.status["observedGeneration"] == self._generation
            ):
                break
        if self._is_in_the_way():
            return False
        assert scenario.phase in ENDED, (scenario.phase, scenario.status.get("message"))
        version = scenario.api.version
        for _ in range(3):
            self._reconcile_once()
        assert scenario.api.version == version, "it has ended, and something was written"
        if "'minReplicas': 0" not in str(self.asked):  # which stops whatever is promoted
            assert scenario.kserve.broken == [], "a predictor that had traffic has no pods"
        fresh = undisturbed(self.mode, self.first)
        if digest(2) in state_of(scenario.resource)["rollout"]["blocked"]:
            assert scenario.phase == "RolledBack"
            return False
        assert scenario.final[:3] == fresh.final[:3]
        if self.is_exact or all(one == self.asked[-1] for one in self.asked):
            assert _served(scenario.service) == _served(fresh.service)
        return True

    @property
    def _generation(self):
        return self.scenario.resource["metadata"]["generation"]

    def _is_in_the_way(self):
        """Return whether what was made on the way stands in the way of the good one for ever.

        An InferenceService that an edited object created may be of the other mode, or have the
        good candidate's address; then that is what is said.
        """
        stalled = self.scenario.conditions.get("Stalled", {})
        if stalled.get("status") != "True" or stalled["reason"] != "SplitNotSupported":
            return False
        # One reason, two causes: only these two stay for ever.
        causes = ("is in the mode", "address of the stable")
        return any(cause in stalled["message"] for cause in causes)


@functools.cache
def undisturbed(mode, first):
    """Return a scenario in which the good one ended, and nobody edited anything."""
    fresh = FaultyScenario(short(), mode=mode, first=first)
    fresh.until_end()
    return fresh


def _served(service):
    """Return what is deployed in the end, without what tells of the way there."""
    predictor = copy.deepcopy(service["spec"]["predictor"])
    predictor.pop("name", None)
    for key in ("ml.dwcp.io/stable", "ml.dwcp.io/stable-replicas", "ml.dwcp.io/version"):
        predictor["annotations"].pop(key, None)
    return predictor
