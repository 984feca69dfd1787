"""What the API server does to an object before it stores it, as far as memory needs it.

Nulls and unknown fields are dropped, absent ones filled in, and the schema is checked, by the
generated definitions. The rules of a definition are CEL, which only a real API server evaluates:
here the type's own check of the same rules stands in their place, and ``change_rejected`` in that
of the rules that compare an object with what is stored. tests/cluster/test_admission.py compares
all of it with a real API server.
"""

import copy
from pathlib import Path

import jsonschema_rs

from docs.generators.crd import RESOURCES
from dwcp_ml.contract.errors import UsageError
from dwcp_ml.operator.api.training_run import MUTABLE
from tests.documents import document_of

CRDS = Path(__file__).parents[2] / "manifests/crds"
TYPES = {one.names.kind: one for one in RESOURCES}
_OPEN, _RULES = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"


def _definitions():
    for path in sorted(CRDS.glob("ml.*.yaml")):
        spec = document_of(path)["spec"]
        yield spec["names"]["kind"], spec["versions"][0]["schema"]["openAPIV3Schema"]


SCHEMAS = dict(_definitions())


def plain(schema):
    """Return the schema as JSON Schema draft 4: OpenAPI 3.0 is that, less int-or-string."""
    if isinstance(schema, list):
        return [plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: plain(one) for key, one in schema.items() if not key.startswith("x-")}
    if schema.get("x-kubernetes-int-or-string"):
        out["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return out


_VALIDATORS = {kind: jsonschema_rs.Draft4Validator(plain(one)) for kind, one in SCHEMAS.items()}


def messages_of_rules(schema):
    """Yield (rule, message) of each rule of a schema and everything in it."""
    for rule in schema.get(_RULES, ()):
        yield rule["rule"], rule["message"]
    parts = [*schema.get("properties", {}).values(), schema.get("items")]
    for part in (*parts, schema.get("additionalProperties")):
        if isinstance(part, dict):
            yield from messages_of_rules(part)


ABOUT_A_CHANGE = sorted(
    {
        message
        for schema in SCHEMAS.values()
        for rule, message in messages_of_rules(schema)
        if "oldSelf." in rule and "oldSelf.hasValue()" not in rule
    }
)
"""Messages of the rules that compare an object with what is stored."""


def admitted(new, old=None):
    """Return the object as it would be stored, and why it would not be: empty if it would.

    Parameters
    ----------
    old
        What is stored now, and was accepted; ``None`` for a new object.
    """
    stored = _whole(copy.deepcopy(new), SCHEMAS[new["kind"]])
    stored["metadata"] = copy.deepcopy(new["metadata"])
    checked = {**stored, "metadata": {"name": new["metadata"]["name"]}}
    errors = [
        f"{'.'.join(map(str, error.instance_path))}: {error.message}"
        for error in _VALIDATORS[new["kind"]].iter_errors(checked)
    ]
    if errors:
        return stored, errors
    rejection = rejection_by_type(stored)
    if rejection:
        return stored, [rejection]
    type_ = TYPES[new["kind"]]
    return stored, list(change_rejected(type_.parse(old), type_.parse(stored)) if old else ())


def change_rejected(old, new):
    """Yield the part of a message that tells each rule about a change that does not hold."""
    before, after = old.spec, new.spec
    if new.kind == "TrainingRun":
        frozen = {field for field in type(after).model_fields if field not in MUTABLE}
        if any(_unordered(before, field) != _unordered(after, field) for field in frozen):
            yield "a run can't be changed"
        if before.cancel and not after.cancel:
            yield "cancel is final"
        return
    if before.inference_service != after.inference_service:
        yield "inferenceService can't be changed"
    if before.model_name != after.model_name:
        yield "model can't be changed"
    if before.template.deployment_mode != after.template.deployment_mode:
        yield "deploymentMode can't be changed"
    was, will = before.candidate, after.candidate
    if (was.version == will.version) != (was.digest == will.digest):
        yield "version and digest must change together"
    if was.digest != will.digest and was.storage_uri == will.storage_uri:
        yield "another storageUri"
    if (was.digest, was.runtime) != (will.digest, will.runtime) and after.abort:
        yield "abort is true"


def _unordered(spec, field):
    """Return a field's value; of a list without its order, as CEL compares sets and maps."""
    value = getattr(spec, field)
    return sorted(map(repr, value)) if isinstance(value, tuple) else value


def rejection_by_type(obj):
    """Return why the type rejects an object, in one sentence; empty if it accepts it."""
    try:
        TYPES[obj["kind"]].parse(obj)
    except UsageError as error:
        return str(error)
    return ""


def _whole(value, schema):
    """Return a value without what is not known, and with what is absent."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)  # as it is once it was written by a program in Go
    if isinstance(value, list) and "items" in schema:
        return [_whole(one, schema["items"]) for one in value]
    if not isinstance(value, dict) or schema.get("type") != "object":
        return value
    known, more = schema.get("properties", {}), schema.get("additionalProperties")
    out = {}
    for key, one in value.items():
        inner = known.get(key) or more
        if inner is None:
            if schema.get(_OPEN) or not (known or more):
                out[key] = one
        elif one is not None or inner.get("nullable"):
            out[key] = _whole(one, inner)
    for key, inner in known.items():
        if key not in out and "default" in inner:
            out[key] = _whole(copy.deepcopy(inner["default"]), inner)
    return out
