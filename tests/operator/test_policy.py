"""What the operator's settings allow in a ModelRollout."""

import pytest
from pydantic import ValidationError

from dwcp_ml.operator.api.model_rollout import ModelRollout
from dwcp_ml.operator.policy import Policy
from dwcp_ml.rollout.reason import Reason
from tests.operator.crd_examples import GONE, PREDICTOR, ROLLOUT, edited

TEMPLATE = "spec.template"
URI = "spec.candidate.storageUri"
LOGS = "https://logs.example.com/v1"

CASES = [
    (f"{PREDICTOR}.serviceAccountName", "admin", {"service_accounts": ("admin",)}),
    (f"{PREDICTOR}.priorityClassName", "system-node-critical",
     {"priority_classes": ("system-node-critical",)}),
    (f"{PREDICTOR}.model.runtime", "kserve-sklearnserver",
     {"runtimes": ("kserve-sklearnserver",)}),
    (f"{PREDICTOR}.model.modelFormat", {"name": "sklearn"}, {"model_formats": ("sklearn",)}),
    (f"{PREDICTOR}.logger", {"url": LOGS}, {"logger_urls": (LOGS,)}),
    *(
        (f"{place}.{kind}", {key: "x"}, {"metadata_keys": (key,)})
        for place in (TEMPLATE, PREDICTOR)
        for kind in ("labels", "annotations")
        for key in (
            "app", "component", "k8s-app", "sidecar.istio.io/inject", "sidecar.istio.io/proxyImage",
            "serving.kserve.io/inferenceservice", "autoscaling.knative.dev/target",
            "app.kubernetes.io/name", "example.com/team", "linkerd.io/inject", "Team", "",
        )
    ),
]  # fmt: skip


def refusal(changes, policy=None):
    return (policy or Policy()).refusal(ModelRollout.parse(edited(ROLLOUT, changes)))


def test_what_the_gate_writes_is_allowed():
    assert refusal({}) is None


@pytest.mark.parametrize(("path", "value", "setting"), CASES, ids=str)
def test_a_value_is_allowed_by_its_setting_alone(path, value, setting):
    cause = refusal({path: value})
    assert cause.reason is Reason.TEMPLATE_NOT_ALLOWED
    assert path.partition("template.")[2] in cause.sentence
    assert "\n" not in cause.sentence
    assert refusal({path: value}, Policy(**setting)) is None or "model" in path


def test_a_runtime_is_allowed_with_its_format():
    changes = {
        f"{PREDICTOR}.model.modelFormat": {"name": "sklearn"},
        f"{PREDICTOR}.model.runtime": GONE,
        f"{PREDICTOR}.model.protocolVersion": GONE,
    }
    assert refusal(changes).reason is Reason.TEMPLATE_NOT_ALLOWED, "KServe would choose a runtime"
    assert refusal(changes, Policy(model_formats=("sklearn",))) is None


def test_a_prefix_allows_the_keys_below_it_and_no_others():
    policy = Policy(metadata_keys=("example.com/",))
    path = f"{PREDICTOR}.annotations"
    assert refusal({path: {"example.com/a": "x"}}, policy) is None
    for key in ("example.com", "sub.example.com/a", "example.community/a", "a"):
        assert refusal({path: {key: "x"}}, policy) is not None, key


@pytest.mark.parametrize("key", ["ml.dwcp.io/", "ml.dwcp.io/stable", "x.ml.dwcp.io/"])
def test_the_operators_own_keys_can_not_be_given_away(key):
    """An annotation ``ml.dwcp.io/stable`` holds a whole predictor that is rolled back to."""
    with pytest.raises(ValidationError):
        Policy(metadata_keys=(key,))


@pytest.mark.parametrize(
    "uri", ["http://example.com/b", "oci://registry/image", "https://169.254.169.254/latest",
            "https://minio.storage.svc/b"],
)  # fmt: skip
def test_an_address_that_is_not_allowed(uri):
    assert refusal({URI: uri}).reason is Reason.ADDRESS_NOT_ALLOWED


def test_a_logger_without_a_url_is_that_of_the_platform():
    assert refusal({f"{PREDICTOR}.logger": {"mode": "all"}}) is None
