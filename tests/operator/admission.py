"""What the API server does to an object before it stores it, by the generated definitions.

Nulls and unknown fields are dropped, absent ones filled in, then the schema is checked, and then
the rules; not whether the items of a list are different. Written from the Kubernetes documentation
(Extend the API > Custom resources > Defaulting, Field pruning, Validation rules); nothing here asks
the types of the operator.
"""

import copy
from pathlib import Path

import jsonschema_rs
import yaml

from tests.operator.cel import CelError, holds

CRDS = Path(__file__).parents[2] / "manifests/crds"
_OPEN, _RULES = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-validations"


def _definitions():
    for path in sorted(CRDS.glob("ml.*.yaml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
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


def admitted(new, old=None):
    """Return the object as it would be stored, and why it would not be: empty if it would.

    Parameters
    ----------
    old
        What is stored now; ``None`` for a new object. It need not be one that is accepted today.
    """
    schema = SCHEMAS[new["kind"]]
    made = _whole(copy.deepcopy(new), schema)
    made["metadata"] = copy.deepcopy(new["metadata"])
    about = {**made, "metadata": {"name": new["metadata"]["name"]}}
    told = [
        f"{'.'.join(map(str, one.instance_path))}: {one.message}"
        for one in _VALIDATORS[new["kind"]].iter_errors(about)
    ]
    if told:
        return made, told
    before = None if old is None else _whole(copy.deepcopy(old), schema)
    return made, list(_broken(schema, about, before, ""))


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


def _broken(schema, new, old, path):
    """Yield the message of each rule that does not hold."""
    for rule in schema.get(_RULES, ()):
        if "oldSelf" in rule["rule"] and old is None:
            continue
        try:
            kept = holds(rule["rule"], self=new, oldSelf=old)
        except (CelError, TypeError):
            kept = False
        if not kept:
            yield f"{path or '.'}: {rule['message']}"
    if isinstance(new, list) and "items" in schema:
        for one in new:
            yield from _broken(schema["items"], one, None, f"{path}[]")
    if isinstance(new, dict):
        before = old if isinstance(old, dict) else {}
        for key, inner in schema.get("properties", {}).items():
            if key in new and key != "metadata":
                yield from _broken(inner, new[key], before.get(key), f"{path}.{key}")
