"""Kubeflow's own description of its HTTP API, read from the client that is generated from it.

``kfp_server_api`` is what openapi-generator makes of the API's description, and carries all of it:
each operation's method, path, query and body, each model's fields and types. Nothing of it is
repeated here, so that a newer package brings a newer description.
"""

import inspect
import json
import math
import re
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import parse_qsl, urlsplit

import kfp_server_api

_PARAMETER = re.compile(r":param (\w+):((?:(?!:param|:type).)*?)\s*:type \w+: (\S+)", re.DOTALL)
_NATIVE = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
ERROR = "GoogleRpcStatus"
ANY = "ProtobufAny"
"""A message of any type: its further fields are those of its ``@type``."""


@dataclass(frozen=True)
class Operation:
    """One method of one path; ``query`` and ``needs`` by name, types as generated."""

    name: str
    method: str
    path: str
    query: dict
    needs: frozenset
    body: str | None
    response: str | None

    def matches(self, method, path):
        pattern = re.sub(r"\\{\w+\\}", "[^/:]+", re.escape(self.path))
        return method == self.method and re.fullmatch(pattern, path) is not None


class _Recorder(kfp_server_api.ApiClient):
    """Records requests, and sends nothing."""

    def call_api(self, resource_path, method, path_params=None, query_params=None,
                 header_params=None, body=None, **given):  # fmt: skip
        return resource_path, method, query_params, body, given["response_type"]


def operations():
    """Return every operation that the generated client has."""
    found, recorder = [], _Recorder()
    for _, service in inspect.getmembers(kfp_server_api, inspect.isclass):
        if not service.__name__.endswith("ServiceApi"):
            continue
        for name, call in inspect.getmembers(service(recorder), inspect.ismethod):
            if name.endswith("_with_http_info"):
                found.append(_operation(name, call))
    return found


def _operation(name, call):
    declared = {
        word: (kind.rstrip(","), "(required)" in text)
        for word, text, kind in _PARAMETER.findall(call.__doc__)
        if not word.startswith("_") and word != "async_req"
    }
    marks = {word: f"<{word}>" for word in declared}
    path, method, query, body, response = call(**marks)
    keys = {mark.strip("<>"): key for key, mark in query}
    return Operation(
        name=name.removesuffix("_with_http_info"),
        method=method,
        path=path,
        query={keys[word]: kind for word, (kind, _) in declared.items() if word in keys},
        needs=frozenset(
            keys[word] for word, (_, must) in declared.items() if must and word in keys
        ),
        body=next((kind for word, (kind, _) in declared.items() if body == f"<{word}>"), None),
        response=response,
    )


OPERATIONS = operations()


def operation_of(method, url):
    """Return the operation of a request; ``None`` if the description has none."""
    path = urlsplit(url).path
    return next((one for one in OPERATIONS if one.matches(method, path)), None)


def faults_of_request(method, url, headers, body):
    """Return what the description forbids about a request, a sentence each."""
    operation = operation_of(method, url)
    if operation is None:
        return [f"there is no operation {method} {urlsplit(url).path}"]
    query = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    faults = [
        f"query: {name} is not there" for name in operation.needs - {name for name, _ in query}
    ]
    for name, text in query:
        if name not in operation.query:
            faults.append(f"query: {operation.name} has no {name}")
        elif operation.query[name] == "int" and not text.lstrip("-").isdigit():
            faults.append(f"query: {name}={text} is no integer")
        elif name == "filter":
            faults += faults_of(_json(text), "V2beta1Filter", "filter")
    if operation.body is None:
        return faults + ([f"body: {operation.name} has none"] if body not in (b"", b"{}") else [])
    if not headers.get("Content-Type", "").startswith("application/json"):
        faults.append("body: its Content-Type is not application/json")
    return faults + faults_of(_json(body), operation.body, "body")


def _json(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


def faults_of(value, kind, where):
    """Return what a type of the description forbids about a JSON value, a sentence each."""
    many = re.fullmatch(r"(list\[|dict\(str, )(.+)[\])]", kind)
    if many:
        return _faults_of_many(value, many[2], where, list if kind.startswith("list") else dict)
    if kind == "datetime":
        return _faults_of_time(value, where)
    if kind in _NATIVE:
        wrong = isinstance(value, bool) and kind in ("int", "float")
        wrong = wrong or (isinstance(value, float) and not math.isfinite(value))
        return [] if isinstance(value, _NATIVE[kind]) and not wrong else [f"{where} is no {kind}"]
    return _faults_of_model(value, kind, where)


def _faults_of_many(value, inner, where, container):
    if not isinstance(value, container):
        return [f"{where} is no {container.__name__}"]
    pairs = value.items() if container is dict else enumerate(value)
    return [fault for key, one in pairs for fault in faults_of(one, inner, f"{where}[{key}]")]


def _faults_of_model(value, kind, where):
    model = getattr(kfp_server_api.models, kind)
    if hasattr(model, "allowable_values"):
        allowed = model.allowable_values
        return [] if value in allowed else [f"{where} is {value!r}, not one of {allowed}"]
    if not isinstance(value, dict):
        return [f"{where} is no {kind}"]
    types = {model.attribute_map[name]: one for name, one in model.openapi_types.items()}
    unknown = set() if kind == ANY else value.keys() - types.keys()
    faults = [f"{where}: {kind} has no {key}" for key in unknown]
    for key in value.keys() & types.keys():
        faults += faults_of(value[key], types[key], f"{where}.{key}")
    return faults


def _faults_of_time(value, where):
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return [f"{where} is no time"]
    return []
