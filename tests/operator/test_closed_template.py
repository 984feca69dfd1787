"""The predictor template is closed: of KServe's fields only the listed ones exist.

The fields are those of the installed kserve package, so a new release is compared by itself.
"""

import kserve.models
import pytest
from kubernetes.client import models as kubernetes_models

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
    Predictor: kserve.models.V1beta1PredictorSpec,
    PredictorModel: kserve.models.V1beta1ModelSpec,
    ModelFormat: kserve.models.V1beta1ModelFormat,
    Logger: kserve.models.V1beta1LoggerSpec,
    Resources: kubernetes_models.V1ResourceRequirements,
    scheduling.Affinity: kubernetes_models.V1Affinity,
    scheduling.NodeAffinity: kubernetes_models.V1NodeAffinity,
    scheduling.RequiredNodes: kubernetes_models.V1NodeSelector,
    scheduling.PreferredNodes: kubernetes_models.V1PreferredSchedulingTerm,
    scheduling.NodeTerm: kubernetes_models.V1NodeSelectorTerm,
    scheduling.NodeExpression: kubernetes_models.V1NodeSelectorRequirement,
    scheduling.PodAffinity: kubernetes_models.V1PodAffinity,
    scheduling.PodAntiAffinity: kubernetes_models.V1PodAntiAffinity,
    scheduling.PreferredPods: kubernetes_models.V1WeightedPodAffinityTerm,
    scheduling.PodTerm: kubernetes_models.V1PodAffinityTerm,
    scheduling.LabelSelector: kubernetes_models.V1LabelSelector,
    scheduling.LabelExpression: kubernetes_models.V1LabelSelectorRequirement,
    scheduling.Toleration: kubernetes_models.V1Toleration,
    scheduling.TopologySpread: kubernetes_models.V1TopologySpreadConstraint,
}


def fields_of(kserve_type):
    return set(kserve_type.attribute_map.values())


def schema_at(path):
    schema = SCHEMAS["ModelRollout"]
    for name in path.split("."):
        schema = schema["properties"][name]
    return schema


def refused_fields():
    for path, type_, allowed in (
        (PREDICTOR, kserve.models.V1beta1PredictorSpec, PREDICTOR_FIELDS),
        (f"{PREDICTOR}.model", kserve.models.V1beta1ModelSpec, MODEL_FIELDS),
    ):
        for name in sorted({*fields_of(type_), *NOT_IN_THE_PACKAGE[path]} - allowed):
            yield path, name


@pytest.mark.parametrize(
    ("path", "fields"), [(PREDICTOR, PREDICTOR_FIELDS), (f"{PREDICTOR}.model", MODEL_FIELDS)]
)
def test_the_schema_has_exactly_these_fields(path, fields):
    schema = schema_at(path)
    assert schema["properties"].keys() == fields
    assert schema.keys().isdisjoint(
        {"additionalProperties", "x-kubernetes-preserve-unknown-fields"}
    )


@pytest.mark.parametrize(("ours", "theirs"), TYPES.items(), ids=lambda one: one.__name__)
def test_every_field_has_the_name_that_kubernetes_knows(ours, theirs):
    assert {field.alias for field in ours.model_fields.values()} <= fields_of(theirs)


@pytest.mark.parametrize("field", sorted(PREDICTOR_FIELDS))
def test_an_allowed_field_of_the_predictor_is_copied_as_it_is(field):
    value = FULL["spec"]["template"]["predictor"][field]
    parsed = ModelRollout.parse(FULL).spec.template.predictor.to_dict()
    assert parsed[field] == value


@pytest.mark.parametrize(("path", "name"), list(refused_fields()))
def test_every_other_field_is_refused_and_never_stored(path, name):
    for value in (True, "x", 1, {"a": "b"}, [{"name": "x"}]):
        check_refused(path, name, value)


def check_refused(path, name, value):
    document = edited(ROLLOUT, {path: {**_at(ROLLOUT, path), name: value}})
    with pytest.raises(UsageError, match="Extra inputs"):
        ModelRollout.parse(document)
    assert name not in schema_at(path)["properties"]
    stored, errors = admitted(document)
    assert errors == []
    assert name not in _at(stored, path), "the API server would keep it"


def _at(document, path):
    for name in path.split("."):
        document = document[name]
    return document
