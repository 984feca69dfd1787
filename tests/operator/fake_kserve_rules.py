"""What KServe's webhook rejects of a canary, as a function, for tests that have no cluster.

It is compared with KServe's own webhook on the cluster of the tests (``test_kserve_webhook``).
"""

import re

MODE = "serving.kserve.io/deploymentMode"
STANDARD = ("Standard", "RawDeployment")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_MAX_NAME = 63
_FRAMEWORKS = (
    "model", "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface",
    "pmml", "lightgbm", "paddle",
)  # fmt: skip
_NOT_ON_A_CANARY = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling", "workerSpec")


def rejection(service):
    """Return why an InferenceService is rejected, or None where it is not."""
    return next(_faults(service), None)


def _faults(service):
    spec = service["spec"]
    name = service["metadata"].get("name", "")
    stable = spec["predictor"]
    if not _NAME.fullmatch(name):
        yield f"the name {name!r} of the InferenceService is not of the form {_NAME.pattern}"
    if "transformer" in spec or "explainer" in spec:
        yield "transformers and explainers are not supported here: run the tests on a real KServe"
    yield from _implementation(stable, "predictor")
    canaries = spec.get("canary") or []
    mode = service["metadata"].get("annotations", {}).get(MODE, STANDARD[0])
    if canaries and mode not in STANDARD:
        yield f"spec.canary needs the deployment mode Standard, not {mode}"
    names = [stable.get("name", "")]
    most = stable.get("minReplicas", 1)
    for number, canary in enumerate(canaries):
        where = f"spec.canary[{number}].predictor"
        yield from _canary(canary["predictor"], where, name, names)
        if canary["predictor"].get("minReplicas", 0) > most:
            yield f"{where}.minReplicas must not be above the stable's {most}"
        names.append(canary["predictor"].get("name", ""))
    total = sum(canary["trafficPercent"] for canary in canaries)
    if total > 100:
        yield f"the canaries' trafficPercent add up to {total}, which is more than 100"


def _canary(predictor, where, service, names):
    name = predictor.get("name", "")
    if not name:
        yield f"{where}.name is required"
    if not _NAME.fullmatch(name):
        yield f"{where}.name {name!r} is not of the form {_NAME.pattern}"
    if name in names:
        yield f"{where}.name {name!r} is that of another predictor"
    if len(f"{service}-{name}-predictor") > _MAX_NAME:
        yield f"{where}.name makes a Deployment's name of over {_MAX_NAME} letters"
    forbidden = [field for field in _NOT_ON_A_CANARY if field in predictor]
    if forbidden:
        yield f"{where} must not set {', '.join(forbidden)}"
    yield from _implementation(predictor, where)


def _implementation(predictor, where):
    found = [field for field in (*_FRAMEWORKS, "containers") if predictor.get(field)]
    if len(found) != 1:
        yield f"{where} needs exactly one implementation, it has {', '.join(found) or 'none'}"
