"""Faults at every point of a rollout on a cluster, and how many of them are tried.

``DWCP_FAULTS=full`` tries the numbers that the documentation gives; else a twentieth, for pytest.
"""

import os

from dwcp_ml.kube.api import INFERENCE_SERVICE, ApiUnavailable
from tests.operator.fake_servers import workload_of
from tests.operator.scenario import KEY, Crash, Scenario, candidate, digest, rollout

SHORT = (10, 50, 100)
FULL = os.environ.get("DWCP_FAULTS") == "full"


def count(full):
    """Return how many of the full number to try."""
    return full if FULL else max(1, -(-full // 20))


def short(**spec):
    """Return a ModelRollout that takes few reconciliations."""
    return rollout(shares=SHORT, dwell=10, requests=10, watchSeconds=20, **spec)


def _promoted(scenario, number):
    return None


def _rolled_back(scenario, number):
    scenario.fleet.errors[digest(2)] = 0.8


def _aborted_at_50(scenario, number):
    if scenario.fleet.routed().get(digest(2)) == 50:
        scenario.once("abort", lambda: scenario.edit(lambda one: one["spec"].update(abort=True)))


def _replaced_at_50(scenario, number):
    if scenario.fleet.routed().get(digest(2)) == 50:
        new = lambda one: one["spec"].update(candidate=candidate(3))  # noqa: E731
        scenario.once("replace", lambda: scenario.edit(new))


def _crashing_first(scenario, number):
    scenario.kserve.unready.add(workload_of(2))
    if number > 3:
        scenario.kserve.crashes[workload_of(2)] = 3
    if number > 8:
        scenario.once("abort", lambda: scenario.edit(lambda one: one["spec"].update(abort=True)))


PATHS = {
    "promoted": (lambda: FaultyScenario(short()), _promoted),
    "rolled back": (lambda: FaultyScenario(short()), _rolled_back),
    "aborted": (lambda: FaultyScenario(short()), _aborted_at_50),
    "replaced": (lambda: FaultyScenario(short()), _replaced_at_50),
    "first deployment": (lambda: FaultyScenario(short(), first=True), _promoted),
    "first deployment that crashes": (lambda: FaultyScenario(short(), first=True), _crashing_first),
}


class FaultyScenario(Scenario):
    """A rollout along one path, which a test disturbs."""

    def __init__(self, *given, **how):
        super().__init__(*given, **how)
        self._done = set()

    def once(self, name, do):
        if name not in self._done:
            self._done.add(name)
            do()

    def play(self, along, rounds=120, quiet=4):
        """Look until nothing has changed for a few reconciliations; return what is left."""
        unchanged, version = 0, self.api.version
        for number in range(rounds):
            along(self, number)
            self.settle()
            try:
                self.reconcile()
            except Crash:
                self.restart()
            unchanged = unchanged + 1 if self.api.version == version else 0
            version = self.api.version
            if unchanged >= quiet and self.phase in ("Promoted", "RolledBack"):
                return self.final
        raise AssertionError(f"still {self.phase}: {self.status.get('reason')}")


class Strikes:
    """Kills the process, or loses the answer, before or after given writes of the operator."""

    def __init__(self, scenario, points, what=Crash):
        self.points = set(points)
        self.what = what
        self.number = 0
        self._after = scenario.api.after
        scenario.api.before, scenario.api.after = self.before, self.after

    def before(self, call):
        if call.is_write:
            self.number += 1
            self._strike("before")

    def after(self, call):
        self._after(call)
        if call.is_write:
            self._strike("after")

    def _strike(self, when):
        if (self.number, when) in self.points:
            raise self.what(f"{when} write {self.number}")


class Paused(BaseException):
    """The process stands still here, with this request on its way."""

    def __init__(self, send):
        super().__init__("paused")
        self.send = send


class Pausing:
    """An API in whose nth write the process is paused after every check, before it is sent."""

    def __init__(self, api, number):
        self._api = api
        self._left = number

    def __getattr__(self, name):
        call = getattr(self._api, name)
        if name not in ("create", "replace", "apply", "delete"):
            return call

        def sent(*given, **how):
            self._left -= 1
            if self._left == 0:
                raise Paused(lambda: call(*given, **how))
            return call(*given, **how)

        return sent


def lost(message):
    """Return what a lost request or answer looks like."""
    return ApiUnavailable(f"no answer ({message}).")


def share_set_by_hand(percent):
    """Return an edit of the InferenceService that sets the candidate's share."""

    def change(service):
        for one in service["spec"].get("canary") or []:
            one["trafficPercent"] = percent

    return lambda scenario: (
        scenario.api.edit(INFERENCE_SERVICE, *KEY, change) if scenario.service is not None else None
    )
