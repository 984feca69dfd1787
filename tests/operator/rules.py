"""The rules of every write, held at each change of an InferenceService.

I1  a candidate's share is 0 or a step, and rises one step at a time
I2  it rises only on a stored passing verdict for that bundle at the step below
I3  a bundle that was rolled back never rises again, but once for each retry of it
I4  the shares are 100 together
I5  nothing is written once a rollout has ended
"""

import json

from dwcp_ml.kube.api import INFERENCE_SERVICE, MODEL_ROLLOUT
from tests.operator.admission import SCHEMAS
from tests.operator.fake_servers import NAME, NAMESPACE, identity, shares_in, stable_in

KEY = (NAMESPACE, NAME)
ENDED = ("Promoted", "RolledBack")
USUAL_STEPS = SCHEMAS["ModelRollout"]["properties"]["spec"]["properties"]["steps"]["default"]
"""Those of an object that names none."""


class Rules:
    """I1 to I5, at every write that changed an InferenceService."""

    def __init__(self, api, routed):
        self.api = api
        self.routed = routed
        self.asked = None
        self.blocked, self.used = set(), set()
        self.weights = []
        self.writes = {"status": 0, "service": 0}
        self.first = True

    def after(self, call):
        if call.kind is MODEL_ROLLOUT and call.verb == "get":
            self.asked = call.answer
        if call.kind is MODEL_ROLLOUT and call.verb == "replace status":
            self.asked = call.answer
            self.writes["status"] += 1
            self._note_blocked(state_of(call.answer))
        if call.kind is INFERENCE_SERVICE and call.is_write:
            self._check()

    def _note_blocked(self, state):
        rollout = state.get("rollout", {})
        used = {
            (one["digest"], one["reason"]) for one in rollout.get("retries", ()) if one["unblocked"]
        }
        self.blocked -= {digest for digest, _ in used - self.used}
        self.used |= used
        self.blocked |= set(rollout.get("blocked", ()))

    def _check(self):
        change = next(
            (one for one in reversed(self.api.changes) if one.kind is INFERENCE_SERVICE), None
        )
        if change is None or change.version != self.api.version:
            return  # nothing was different
        self.writes["service"] += 1
        before = shares_in(change.before)
        after = {} if change.type == "DELETED" else shares_in(change.obj)
        stored = state_of(self.api.at(MODEL_ROLLOUT, *KEY))
        kept = stored.get("rollout", {})
        spec = self.asked["spec"]
        candidate = spec["candidate"]
        desired = identity(candidate["digest"].removeprefix("sha256:"), candidate.get("runtime"))
        revision = kept.get("revision") or {}
        about = identity(revision.get("digest"), revision.get("runtime"))
        if kept.get("phase") in ENDED and about == desired:
            raise AssertionError(f"I5: a write after the end: {before} -> {after}")
        assert all(0 <= share <= 100 for share in after.values()), f"I4: {after}"
        assert not after or sum(after.values()) == 100, f"I4: {after}"
        self._check_stable(change, kept, desired, about)
        rungs = (0, *(step["trafficPercent"] for step in spec.get("steps", USUAL_STEPS)))
        if change.type == "DELETED":
            return
        stable = stable_in(change.obj)
        for one in after.keys() - {stable}:
            # Somebody's edit that KServe has not carried out yet is not live.
            old, new = max(before.get(one, 0), self.routed().get(one, 0)), after[one]
            if new <= old:
                continue
            self._check_rise(one, old, new, rungs, kept, desired, about)
            self.weights.append(new)

    def _check_stable(self, change, kept, desired, about):
        """A change of the stable is a first deployment, or the promotion of what has passed."""
        if change.type != "MODIFIED":
            return
        was, made = (one["spec"]["predictor"] for one in (change.before, change.obj))
        assert was.get("name") == made.get("name") or (
            was["model"]["storageUri"] != made["model"]["storageUri"]
        ), "KServe rejects another name of a predictor without another address"
        old, new = stable_in(change.before), stable_in(change.obj)
        if old == new:
            return
        assert new == desired == about, "I2: another bundle than the candidate was promoted"
        assert shares_in(change.before).get(new) == 100, "I1: promoted below 100 %"
        assert kept["phase"] == "Promoting", "I2: promoted without a stored verdict"
        assert kept["passed_percent"] == 100, "I2: promoted without a stored verdict"
        assert new not in self.blocked, "I3: promoted after a rollback"

    def _check_rise(self, one, old, new, rungs, kept, desired, about):
        assert new in rungs, f"I1: {new} is no step of {rungs}"
        below = max(share for share in rungs if share < new)
        assert old >= below, f"I1: from {old} to {new} of {rungs}"
        assert one == desired == about, "I2: risen without being the candidate that is stored"
        assert one not in self.blocked, "I3: risen after a rollback"
        assert kept["target_percent"] >= new, "risen before it was stored"
        if below:
            assert kept["passed_percent"] >= below, "I2: no stored verdict"


def state_of(resource):
    text = ((resource or {}).get("status") or {}).get("state")
    return json.loads(text) if text else {}
