"""The server's OpenAPI 3.1 description, made from the manifests of its models."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from dwcp_ml import __version__
from dwcp_ml.contract.bundle import VERSION_PATTERN, TensorRecord
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.outcomes import MAX_OUTCOMES, Counted
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.sketches import compared_output
from dwcp_ml.serving.v2 import DATATYPES

Schema = dict[str, Any]

_MAX_FLOAT32 = 3.4028234e38
"""The largest float32."""


def description(models: Iterable[ServedModel], limits: Limits) -> Schema:
    """Return the OpenAPI document of a server."""
    paths: Schema = {
        "/v1/models": {"get": _read("The names of the models", {"models": _list(_STRING)})},
        "/v2": {"get": _read("The server", {"name": _STRING, "version": _STRING})},
        "/v2/health/live": {"get": _read("Whether the server runs", {"live": _BOOLEAN})},
        "/v2/health/ready": {
            "get": _read("Whether every model is warm", {"ready": _BOOLEAN}, unavailable=True)
        },
        "/metrics": {"get": {"summary": "Metrics for Prometheus", "responses": {"200": _TEXT}}},
    }
    for model in models:
        paths |= _model_paths(model, limits)
    return {
        "openapi": "3.1.0",
        "info": {"title": "dwcp-ml model server", "version": __version__},
        "paths": paths,
    }


_STRING: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_TEXT: Schema = {"description": "text", "content": {"text/plain": {"schema": _STRING}}}
# Tensors follow the JSON, if the client requests them in this form.
_BYTES: Schema = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_ERROR: Schema = {
    "type": "object",
    "properties": {"error": _STRING},
    "required": ["error"],
}
_REQUEST_ID: Schema = {
    "name": "X-Request-Id",
    "in": "header",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    "description": "returned in the response; generated if absent",
}


def _model_paths(model: ServedModel, limits: Limits) -> Schema:
    shape = list(model.shape)
    instances = _nested(_NUMBER, shape)
    batch = {"type": "array", "items": instances, "minItems": 1, "maxItems": limits.rows}
    prediction = {output.name: _value(output) for output in model.outputs}
    v1 = _infer(
        f"Request predictions of {model.name} (V1, TensorFlow Serving's form)",
        _object({"instances": batch}, {"signature_name": {}, "parameters": {}})
        | {"additionalProperties": False},
        {"predictions": _list(_object(prediction))},
    )
    tensor = _object(
        {
            "name": {"const": model.input.name},
            "datatype": {"const": DATATYPES[model.input.dtype]},
            # One row: the size of data can't follow the first size of shape in this language.
            "shape": {"const": [1, *shape]},
            "data": _nested(_NUMBER, [math.prod(shape)]),
        },
        {"parameters": {"type": "object", "properties": {"binary_data_size": False}}},
    )
    names = [*(output.name for output in model.outputs), *model.optional_outputs]
    requested = _object({"name": {"enum": names}})
    optional = {
        "id": {"type": "string", "maxLength": 200},
        "parameters": {"type": "object", "properties": {"binary_data_output": _BOOLEAN}},
        "outputs": _list(requested | {"additionalProperties": False}) | {"uniqueItems": True},
    }
    predicted = _object(
        {"name": _STRING, "datatype": _STRING, "shape": _list({"type": "integer"})},
        {"data": _list({}), "parameters": {"type": "object"}},
    )
    v2 = _infer(
        f"Request predictions of {model.name} (V2, Open Inference Protocol)",
        _object({"inputs": _list(tensor) | {"minItems": 1, "maxItems": 1}}, optional),
        {
            "model_name": {"const": model.name},
            "model_version": {"const": model.version},
            "id": _STRING,
            "outputs": _list(predicted),
        },
    )
    v2["responses"]["200"]["content"] |= _BYTES
    name, version = model.name, model.version
    read_v2 = _read("The model's tensors", {"name": {"const": name}})
    compared = compared_output(model)
    feedback = {} if compared is None else {"post": _feedback(name, _value(compared))}
    return {
        f"/v1/models/{name}:feedback": feedback,
        f"/v1/models/{name}": {
            "get": _read("Whether the model is ready", {"name": {"const": name}})
        },
        f"/v1/models/{name}:predict": {"post": v1},
        f"/v1/models/{name}/versions/{version}:predict": {"post": v1},
        f"/v2/models/{name}": {"get": read_v2},
        f"/v2/models/{name}/ready": {
            "get": _read("Whether the model is ready", {"ready": _BOOLEAN})
        },
        f"/v2/models/{name}/infer": {"post": v2},
        f"/v2/models/{name}/versions/{version}/infer": {"post": v2},
    }


_NUMBER: Schema = {"type": "number", "minimum": -_MAX_FLOAT32, "maximum": _MAX_FLOAT32}


def _feedback(name: str, value: Schema) -> Schema:
    text = {"type": "string", "maxLength": 128}
    outcome = _object(
        {"version": text | {"pattern": f"^{VERSION_PATTERN.pattern}$"}, "prediction": value,
         "outcome": value},
        {"id": text},
    )  # fmt: skip
    outcomes = _list(outcome | {"additionalProperties": False})
    outcomes |= {"minItems": 1, "maxItems": MAX_OUTCOMES}
    count = {"type": "integer", "minimum": 0}
    return _posted(
        f"Report what came true of predictions of {name}, of any version",
        _object({"outcomes": outcomes}) | {"additionalProperties": False},
        _json("How many are counted", _object(dict.fromkeys(Counted._fields, count))),
    )


def _infer(summary: str, request: Schema, response: Schema) -> Schema:
    return _posted(summary, request, _json("The predictions", _object(response)))


def _posted(summary: str, request: Schema, response: Schema) -> Schema:
    return {
        "summary": summary,
        "parameters": [_REQUEST_ID],
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {
            "200": response,
            "400": _json("What is wrong with the request", _ERROR),
            "413": _json("Too many values or bytes", _ERROR),
            "503": _json("Not ready, or shutting down", _ERROR),
        },
    }


def _read(summary: str, content: Schema, unavailable: bool = False) -> Schema:
    responses = {"200": _json(summary, _object(content))}
    if unavailable:
        responses["503"] = _json("Not ready", _ERROR)
    return {"summary": summary, "responses": responses}


def _json(summary: str, schema: Schema) -> Schema:
    return {"description": summary, "content": {"application/json": {"schema": schema}}}


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    properties = required | (optional or {})
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _nested(cell: Schema, shape: list[int]) -> Schema:
    schema = cell
    for size in reversed(shape):
        schema = {"type": "array", "items": schema, "minItems": size, "maxItems": size}
    return schema


def _value(output: TensorRecord) -> Schema:
    kind = {"bool": "boolean", "int64": "integer"}.get(output.dtype, "number")
    cell: Schema = {"type": kind}
    if output.unit:
        cell["description"] = f"{output.description}, {output.unit}"
    if kind != "boolean":
        cell |= {
            key: bound
            for key, bound in (("minimum", output.minimum), ("maximum", output.maximum))
            if bound is not None
        }
    return _nested(cell, list(output.shape))
