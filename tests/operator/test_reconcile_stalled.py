"""What can't be done holds, leaves everything as it is, and is said in one sentence."""

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE
from dwcp_ml.kube.kserve import Refused
from tests.operator.fake_servers import shares_in
from tests.operator.random_rollouts import accepted_by_kserve
from tests.operator.scenario import (
    KEY,
    SHARES,
    Scene,
    at,
    digest,
    held,
    rollout,
)

pytestmark = pytest.mark.slow


def asked(service):
    return shares_in(service).get(digest(2))


@pytest.mark.parametrize(
    "forge",
    [
        lambda status: status.update(
            memory=status["memory"].replace('"passed_percent":1', '"passed_percent":50')
        ),
        lambda status: status.update(seal="hmac-sha256:" + "0" * 64),
        lambda status: status.update(seal=""),
        lambda status: status.update(memory=""),
    ],
)
def test_a_memory_that_was_edited_is_not_believed_and_holds(forge):
    scene = at(5)
    scene.edit_status(forge)
    conditions = held(scene)
    assert conditions["Held"]["reason"] == "NotBelieved"
    assert "not written by this operator" in conditions["Held"]["message"]
    assert scene.told[-1].warning
    scene.edit_status(lambda status: (status.pop("memory"), status.pop("seal")))
    assert scene.until_end() == "Promoted"
    assert scene.conditions["Held"]["status"] == "False"


def test_a_rollout_whose_metrics_are_silent_counts_as_held():
    scene = at(25)
    assert scene.look().trouble == ""
    scene.fleet.broken["candidate"] = "its pages do not answer."
    for _ in range(60):
        result = scene.look()
    assert scene.conditions["Held"]["reason"] == "Waiting"
    assert result.trouble == scene.status["reason"]
    scene.fleet.broken.clear()
    assert scene.until_end() == "Promoted"
    assert scene.look().trouble == ""


def test_an_emptied_status_is_not_the_word_that_nothing_is_live():
    scene = at(25)
    scene.edit_status(lambda status: status.clear())
    scene.rules.weights.clear()
    scene.look()
    assert scene.status["stable"]["version"] == "v1"
    assert scene.until_end() == "Promoted"
    assert scene.rules.weights == list(SHARES), "it begins at the first step again"


def test_weights_and_verdicts_in_the_status_are_never_read():
    plain, forged = at(5), at(5)
    for scene in (plain, forged):
        for _ in range(60):
            if scene is forged:
                scene.edit_status(
                    lambda status: status.update(
                        livePercent=100, targetPercent=100, passedPercent=100, phase="Promoted",
                        verdicts=[{"test": "error_rate", "outcome": "pass", "sentence": "well"}],
                        barred=[f"sha256:{digest(7)}"],
                    )
                )  # fmt: skip
            scene.look()
    assert forged.rules.weights == plain.rules.weights == [*SHARES]
    assert forged.service["spec"] == plain.service["spec"]


def test_a_status_that_is_garbage_but_for_the_memory_is_written_anew():
    scene = at(5)
    scene.edit_status(lambda status: status.update(phase=17, verdicts="none", conditions=[{}]))
    assert scene.until_end() == "Promoted"


def test_a_test_that_nothing_here_can_feed_is_refused_at_once():
    scene = Scene(rollout(analysis={"truth": {"required": True}}))
    conditions = held(scene)
    assert conditions["Refused"]["reason"] == "TestNotFed"
    assert "'truth'" in conditions["Refused"]["message"]


def test_an_inference_service_that_is_gone_in_the_middle_holds():
    scene = at(5)
    scene.api.delete(INFERENCE_SERVICE, *KEY)
    conditions = held(scene)
    assert "is gone" in conditions["Held"]["message"]
    scene.edit_status(lambda status: (status.pop("memory"), status.pop("seal")))
    assert scene.until_end() == "Promoted"
    assert scene.final[1] == digest(2), "it was made a first deployment"


def test_metrics_that_are_down_are_told_once_they_are_down_for_long():
    scene = at(5)
    scene.fleet.broken["candidate"] = "connection refused"
    for _ in range(4):
        scene.look()
    assert "Held" not in scene.conditions
    for _ in range(60):
        scene.look()
    assert "connection refused" in scene.conditions["Held"]["message"]
    assert asked(scene.service) == 5
    writes = scene.rules.writes["status"]
    for _ in range(60):
        scene.look()
    assert scene.rules.writes["status"] == writes
    scene.fleet.broken.clear()
    assert scene.until_end() == "Promoted"
    assert scene.conditions["Held"]["status"] == "False"


def refusing(routers):
    """Return the routers as they are, but for that they can't do what is asked."""

    def refuse(*given):
        raise Refused("there is no room for its name.")

    def router_of(*place):
        router = routers(*place)
        router.set = refuse
        return router

    return router_of


def tolerated(one):
    one["spec"]["template"]["predictor"]["tolerations"] = "all"


@pytest.mark.parametrize("by", ["the API server", "the router"])
def test_a_write_that_is_refused_is_told_once_and_what_was_decided_is_kept(by):
    scene = Scene()
    routers = scene.operator.routers
    if by == "the router":
        scene.operator.routers = refusing(routers)
    else:
        scene.edit(tolerated)
        scene.api.admit = accepted_by_kserve
    scene.look()
    stored = scene.status["memory"]
    conditions = held(scene)
    assert conditions["Held"]["reason"] == "RouterRefused"
    assert ("no room" if by == "the router" else "tolerations") in conditions["Held"]["message"]
    assert scene.status["memory"] == stored, "an older one would be written again at every look"
    scene.operator.routers = routers
    scene.edit(lambda one: one["spec"]["template"]["predictor"].pop("tolerations", None))
    assert scene.until_end() == "Promoted"
    assert scene.conditions["Held"]["status"] == "False"
