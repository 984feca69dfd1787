"""The predictor template is closed: of KServe's fields only the listed ones exist.

The fields are those of the installed kserve package, so a new release is compared by itself.
"""

import pytest

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.operator.api import scheduling
from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.api.template import (
    Logger,
    ModelFormat,
    Predictor,
    PredictorModel,
    Resources,
)
from tests.operator.admission import SCHEMAS, admitted
from tests.operator.crd_examples import FULL, PREDICTOR, ROLLOUT, edited

PREDICTOR_FIELDS = {
    "model", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "containerConcurrency",
    "timeout", "logger", "serviceAccountName", "priorityClassName", "nodeSelector", "tolerations",
    "affinity", "topologySpreadConstraints", "labels", "annotations",
}  # fmt: skip
MODEL_FIELDS = {"modelFormat", "runtime", "protocolVersion", "resources"}
NOT_IN_THE_PACKAGE = {
    PREDICTOR: ("nodeSelectorTerms", "workerSpec.containers", "storage", "env", "command", "image"),
    f"{PREDICTOR}.model": ("volumes", "hostNetwork", "securityContexts", "containers"),
}
TYPES = {
    Predictor: "V1beta1PredictorSpec",
    PredictorModel: "V1beta1ModelSpec",
    ModelFormat: "V1beta1ModelFormat",
    Logger: "V1beta1LoggerSpec",
    Resources: "V1ResourceRequirements",
    scheduling.Affinity: "V1Affinity",
    scheduling.NodeAffinity: "V1NodeAffinity",
    scheduling.RequiredNodes: "V1NodeSelector",
    scheduling.PreferredNodes: "V1PreferredSchedulingTerm",
    scheduling.NodeTerm: "V1NodeSelectorTerm",
    scheduling.NodeExpression: "V1NodeSelectorRequirement",
    scheduling.PodAffinity: "V1PodAffinity",
    scheduling.PodAntiAffinity: "V1PodAntiAffinity",
    scheduling.PreferredPods: "V1WeightedPodAffinityTerm",
    scheduling.PodTerm: "V1PodAffinityTerm",
    scheduling.LabelSelector: "V1LabelSelector",
    scheduling.LabelExpression: "V1LabelSelectorRequirement",
    scheduling.Toleration: "V1Toleration",
    scheduling.TopologySpread: "V1TopologySpreadConstraint",
}


def fields_of(name):
    """Return the fields of a type of KServe or Kubernetes: two packages that take a second."""
    import kserve.models
    from kubernetes.client import models

    found = getattr(kserve.models, name, None) or getattr(models, name)
    return set(found.attribute_map.values())


def schema_at(path):
    schema = SCHEMAS["ModelRollout"]
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


@pytest.mark.parametrize(
    ("path", "fields"), [(PREDICTOR, PREDICTOR_FIELDS), (f"{PREDICTOR}.model", MODEL_FIELDS)]
)
def test_the_schema_has_exactly_these_fields(path, fields):
    schema = schema_at(path)
    assert schema["properties"].keys() == fields
    assert schema.keys().isdisjoint(
        {"additionalProperties", "x-kubernetes-preserve-unknown-fields"}
    )


@pytest.mark.parametrize(("ours", "theirs"), TYPES.items(), ids=list(TYPES.values()))
def test_every_field_has_the_name_that_kubernetes_knows(ours, theirs):
    assert {field.alias for field in ours.model_fields.values()} <= fields_of(theirs)


@pytest.mark.parametrize("field", sorted(PREDICTOR_FIELDS))
def test_an_allowed_field_of_the_predictor_is_copied_as_it_is(field):
    value = FULL["spec"]["template"]["predictor"][field]
    parsed = ModelRollout.parse(FULL).spec.template.predictor.to_dict()
    assert parsed[field] == value


@pytest.mark.parametrize(
    ("path", "theirs", "allowed"),
    [
        (PREDICTOR, "V1beta1PredictorSpec", PREDICTOR_FIELDS),
        (f"{PREDICTOR}.model", "V1beta1ModelSpec", MODEL_FIELDS),
    ],
    ids=["predictor", "model"],
)
def test_every_other_field_is_refused_and_never_stored(path, theirs, allowed):
    others = sorted({*fields_of(theirs), *NOT_IN_THE_PACKAGE[path]} - allowed)
    assert len(others) > len(NOT_IN_THE_PACKAGE[path])
    for name in others:
        for value in (True, "x", 1, {"a": "b"}, [{"name": "x"}]):
            check_refused(path, name, value)


def check_refused(path, name, value):
    document = edited(ROLLOUT, {path: {**_at(ROLLOUT, path), name: value}})
    with pytest.raises(UsageError, match="Extra inputs"):
        ModelRollout.parse(document)
    assert name not in schema_at(path)["properties"]
    stored, errors = admitted(document)
    assert errors == [], name
    assert name not in _at(stored, path), "the API server would keep it"


def _at(document, path):
    for name in path.split("."):
        document = document[name]
    return document
