"""InferenceServices have the types of KServe's SDK; what lacks there can't be written."""

import pytest

from dwcp_ml.operator.api.model_rollout import ModelRollout
from tests.kube.kserve.fakes import MODES, RouterScenario, bundle
from tests.kube.kserve.sdk import Untyped, typed
from tests.operator.crd_examples import FULL, PREDICTOR, edited

SERVICE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "metadata": {"name": "bandwidth-predictor"},
    "spec": {
        "predictor": {"name": "v1", "model": {"modelFormat": {"name": "dwcp-ml-bundle"}}},
        "canary": [{"predictor": {"name": "v2"}, "trafficPercent": 1}],
    },
}


def test_the_models_have_the_canary_of_standard_mode():
    (canary,) = typed(SERVICE).spec.canary
    assert (canary.predictor.name, canary.traffic_percent) == ("v2", 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.predictors", {}),
        ("spec.predictor.trafficPercent", 1),
        ("spec.predictor.model.storageURI", "s3://m"),
        ("spec.predictor.model", {"runtime": "a"}),
        ("spec.predictor.model.args", "--digest=a"),
        ("spec.predictor.minReplicas", "1"),
        ("spec.predictor.minReplicas", True),
        ("spec.predictor.labels", {"a": 1}),
        ("spec.predictor.affinity", {"podAntiAffinity": {"preferred": []}}),
        ("spec.canary", [{"predictor": {}, "percent": 1}]),
        ("spec.canary", {"predictor": {}}),
        ("metadata.label", {}),
    ],
)
def test_other_fields_and_types_are_none_of_kserve(path, value):
    with pytest.raises(Untyped):
        typed(edited(SERVICE, {path: value}))


@pytest.mark.parametrize("mode", MODES)
def test_the_operator_writes_a_full_template_with_kserves_types(mode):
    quantities = {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}}
    rollout = ModelRollout.parse(edited(FULL, {f"{PREDICTOR}.model.resources": quantities}))
    predictor = rollout.spec.template.predictor.to_dict()
    stable, candidate, following = (bundle(day, predictor=predictor) for day in (1, 2, 3))
    scenario = RouterScenario(mode)  # whose writes have to pass ``typed``
    scenario.deploy(stable)
    scenario.raise_to(25, candidate)
    scenario.roll_back(candidate)
    scenario.raise_to(50, following)
    live = scenario.promote(following)
    assert live.promoted
    written = [call.obj for call in scenario.api.writes if call.kind.kind == "InferenceService"]
    assert len(written) > 5
    assert predictor.keys() <= scenario.predictor.keys()
