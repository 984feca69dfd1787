"""KServe's custom resource definitions, derived from the types of KServe's own Python package.

The package is generated from the same source as KServe's definitions, so fields, types and
required fields are KServe's. What the package leaves open (a few types of Knative and Kubernetes)
is left open here too; KServe's own definitions close it.
"""

import functools
import hashlib
import importlib
import inspect
import json
import pkgutil
import re
from importlib.metadata import version as installed
from pathlib import Path

from dwcp_ml.files import write_text

_GROUP = "serving.kserve.io"
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}
_QUANTITY = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
_PLAIN = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "datetime": {"type": "string", "format": "date-time"},
    "V1Time": {"type": "string", "format": "date-time"},
    "KnativeVolatileTime": {"type": "string", "format": "date-time"},
    "KnativeURL": {"type": "string"},
    "object": _OPEN,
    "ResourceQuantity": _QUANTITY,
}
_NARROWER = {
    # What the package's documentation says in words and its types do not.
    "V1beta1CanarySpec.trafficPercent": {"minimum": 0, "maximum": 100},
}


def definitions(cache):
    """Return the definitions of InferenceService, ServingRuntime and ClusterServingRuntime.

    Parameters
    ----------
    cache
        A directory that keeps them: importing the two packages takes seconds.
    """
    source = Path(__file__).read_bytes() + installed("kserve").encode()
    kept = cache / f"kserve-{hashlib.sha256(source).hexdigest()[:16]}.json"
    if not kept.is_file():
        write_text(kept, json.dumps(derive()))
    return json.loads(kept.read_text())


def derive():
    """Return the same, always derived anew."""
    return [
        _definition("v1beta1", "InferenceService", "Namespaced", ["isvc"]),
        _definition("v1alpha1", "ServingRuntime", "Namespaced", []),
        _definition("v1alpha1", "ClusterServingRuntime", "Cluster", []),
    ]


def _definition(version, kind, scope, short_names):
    described = {
        name: value
        for name, value in _schema(f"{version.capitalize()}{kind}")["properties"].items()
        if name in ("spec", "status")
    }
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{_GROUP}"},
        "spec": {
            "group": _GROUP,
            "scope": scope,
            "names": {
                "kind": kind, "listKind": f"{kind}List", "plural": plural,
                "singular": kind.lower(), "shortNames": short_names,
            },
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": described}},
                }
            ],
        },
    }  # fmt: skip


def _schema(name, inside=()):
    """Return the schema of a type by the name that the package gives it."""
    if name in _PLAIN:
        return dict(_PLAIN[name])
    if found := re.fullmatch(r"list\[(.*)\]", name):
        return {"type": "array", "items": _schema(found[1], inside)}
    if found := re.fullmatch(r"dict\(str, (.*)\)", name):
        return {"type": "object", "additionalProperties": _schema(found[1], inside)}
    model = _models().get(name)
    if model is None or name in inside:
        return dict(_OPEN)
    properties = {
        model.attribute_map[attribute]: _schema(kind, (*inside, name))
        for attribute, kind in model.openapi_types.items()
    }
    for field, bounds in _NARROWER.items():
        owner, _, key = field.partition(".")
        if owner == name:
            properties[key].update(bounds)
    required = [
        model.attribute_map[attribute]
        for attribute in model.openapi_types
        if _is_needed(model, attribute)
    ]
    schema = {"type": "object", "properties": properties}
    return {**schema, "required": required} if required else schema


def _is_needed(model, attribute):
    # The generated setter is the only place where the package says so.
    said = getattr(model, attribute).fset.__code__.co_consts
    return any("must not be `None`" in one for one in said if isinstance(one, str))


@functools.cache
def _models():
    """Return name -> class of every type of KServe and of the Kubernetes client."""
    import kserve.models
    import kubernetes.client.models

    found = {}
    for package in (kubernetes.client.models, kserve.models):
        for module in pkgutil.iter_modules(package.__path__):
            contents = vars(importlib.import_module(f"{package.__name__}.{module.name}"))
            found.update(
                (name, one)
                for name, one in contents.items()
                if inspect.isclass(one) and hasattr(one, "openapi_types")
            )
    return found
