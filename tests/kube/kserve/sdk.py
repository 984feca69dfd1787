"""The models of KServe's SDK: they type every InferenceService that a test sees written.

They are generated from KServe's types, ``spec.canary`` of Standard mode included. Reading JSON with
the SDK's own client drops the fields that a model lacks; here they are errors.
"""

import re
from functools import cache

_PRIMITIVES = {
    "str": str,
    "int": int,
    "bool": bool,
    "float": (int, float),
    "object": object,  # of Kubernetes: any value
    "datetime": str,
}


class Untyped(Exception):
    """KServe's models have no such field, or another type for it."""


@cache
def _model(name):
    import kserve.models  # with its server's libraries: two seconds
    from kubernetes.client import models

    model = getattr(kserve.models, name, None) or getattr(models, name, None)
    if model is None:
        raise Untyped(f"no package has the type {name}")
    return model, {key: field for field, key in model.attribute_map.items()}


def typed(value, kind="V1beta1InferenceService", path=""):
    """Return an object as the SDK's models.

    Raises
    ------
    Untyped
        If a field is unknown, lacks or has a value of another type.
    """
    if match := re.fullmatch(r"list\[(.*)\]", kind):
        _require(isinstance(value, list), path, kind)
        return [typed(item, match[1], f"{path}[{at}]") for at, item in enumerate(value)]
    _require(kind in _PRIMITIVES or isinstance(value, dict), path, kind)
    if match := re.fullmatch(r"dict\(str, (.*)\)", kind):
        return {key: typed(item, match[1], f"{path}.{key}") for key, item in value.items()}
    if kind in _PRIMITIVES:
        _require(isinstance(value, _PRIMITIVES[kind]), path, kind)
        _require(not isinstance(value, bool) or kind in ("bool", "object"), path, kind)
        return value
    model, fields = _model(kind)
    for key in value:
        if key not in fields:
            raise Untyped(f"{kind} has no field {path}.{key}")
    given = {
        fields[key]: typed(item, model.openapi_types[fields[key]], f"{path}.{key}")
        for key, item in value.items()
    }
    try:
        return model(**given)
    except ValueError as error:  # a required field lacks
        raise Untyped(f"{path or kind}: {error}") from None


def _require(condition, path, kind):
    if not condition:
        raise Untyped(f"{path} is not of the type {kind}")
