"""In each phase the conditions, and the health that Argo CD shows, are those of docs/health.md.

tests/cluster/operator/test_phases.py has the same phases on a real API server.
"""

import pytest

from tests.manifests.argocd import health, scripts
from tests.operator.faulty import FaultyScenario
from tests.operator.phases import PATHS, SPEC
from tests.operator.scenario import rollout


@pytest.mark.parametrize("name", PATHS)
def test_conditions_and_health_of_each_phase(name):
    path, how = PATHS[name]
    spec = {**SPEC, **how}
    scenario = FaultyScenario(first=spec.pop("first", False), resource=rollout(**spec))
    scenario.max_seconds = 10.0
    script = scripts()["ModelRollout"]
    for phase, expected in path(scenario):
        obj = scenario.resource
        answer, _ = health(obj, script)
        assert answer == expected.health, (phase, obj.get("status"))
        if expected.true is not None:
            conditions = obj["status"]["conditions"]
            true = {one["type"] for one in conditions if one["status"] == "True"}
            assert true == expected.true, (phase, conditions)
            (reason,) = {one["reason"] for one in conditions}
            assert reason == (expected.reason or reason), (phase, conditions)
