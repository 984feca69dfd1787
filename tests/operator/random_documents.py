"""Random documents and edits, over every field of the generated definitions.

A place is a path through a schema; ``[]`` stands for an item of a list, ``*`` for a key of a map.
Values are valid, at the border of what is, or wrong. Nothing names a field here, so that a new one
is covered by itself; a pattern that no text below matches is an error.
"""

import copy
import functools
import re

import numpy as np

from tests.operator.admission import SCHEMAS
from tests.operator.scenario import candidate, digest

TEXTS = (
    "v1", "v2", "v3", "v4", "20260101-000000", "V3.0+build_7", "bandwidth-predictor", "eu",
    "bandwidth_predictor", "mape_percent", "next_throughput_mbps", "s3://models/x",
    "pvc://dwcp-models/b/v3", *(candidate(one)["storageUri"] for one in (1, 2, 3, 4)),
    *(f"sha256:{digest(one)}" for one in (1, 2, 3, 4)), "500m", "1Gi", "2", "1e3", "night",
    "dwcp-ml-bundle", "ü – ñ 😀", "2026-01-01T00:00:00Z", "text with\nlines", "null", "true",
    "https://logs.example.com",
)  # fmt: skip
KEYS = (
    "team", "cpu", "memory", "x", "nodeName", "ml.dwcp.io/stable", "ml.dwcp.io/stable-replicas",
    "ml.dwcp.io/digest", "serving.kserve.io/deploymentMode", "tolerations", "env", "timeout",
    "scaleTarget", "with\nlines", "",
)  # fmt: skip
WRONG = (
    None, True, False, 0, 1, -1, 17, 0.5, -0.0, 1e308, 2**31, 2**63 - 1, -(2**63), "", "text", "5",
    "true", "a\nb", [], [None], [[]], [1, "a"], {}, {"a": None}, {"a": {"b": [{}]}}, [{}],
)  # fmt: skip
OPEN = "x-kubernetes-preserve-unknown-fields"


def places(schema, path=()):
    """Return every place below a schema."""
    found = [path] if path else []
    for name, one in schema.get("properties", {}).items():
        found += places(one, (*path, name))
    for key, mark in (("items", "[]"), ("additionalProperties", "*")):
        if key in schema:
            found += places(schema[key], (*path, mark))
    return found


SUBJECT_DEPTH = 4
"""Places that have this much of their path in common are of one subject, such as an affinity."""

PLACES = {kind: places(one["properties"]["spec"], ("spec",)) for kind, one in SCHEMAS.items()}

SUBJECTS = {
    kind: list(dict.fromkeys(path[:SUBJECT_DEPTH] for path in paths))
    for kind, paths in PLACES.items()
}
"""Equally likely to be changed, or one with many fields would take the place of the others."""


def valid(schema, rng):
    """Return a value that the schema accepts; the rules may not."""
    if "enum" in schema:
        return _one(schema["enum"], rng)
    kind = schema.get("type") or str(rng.choice(["integer", "string"]))
    return _MAKERS[kind](schema, rng)


def _array(schema, rng):
    least, most = schema.get("minItems", 0), min(schema.get("maxItems", 4), 4)
    return [valid(schema["items"], rng) for _ in range(rng.integers(least, most + 1))]


def _number(schema, rng):
    low = schema.get("minimum", 0)
    high = min(schema.get("maximum", low + 100), low + 10 ** int(rng.integers(1, 4)))
    if schema.get("type") != "number":
        return int(rng.integers(low, high + 1))
    return float(low + (high - low) * rng.uniform(0.01, 0.99))


def _object(schema, rng):
    needed, out = schema.get("required", ()), {}
    for name, one in schema.get("properties", {}).items():
        if name in needed or rng.random() < 0.2:
            out[name] = valid(one, rng)
    more = schema.get("additionalProperties")
    if more is not None or (schema.get(OPEN) and rng.random() < 0.3):
        for _ in range(rng.integers(0, 3)):
            out.setdefault(_one(KEYS, rng), _one(WRONG, rng) if more is None else valid(more, rng))
    return out


def _texts(schema):
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 10**6)
    return _texts_of(shortest, longest, schema.get("pattern", ""))


@functools.cache
def _texts_of(shortest, longest, pattern):
    inner = pattern.removeprefix("^").removesuffix("$")
    found = [
        text
        for text in TEXTS
        if shortest <= len(text) <= longest and (not pattern or re.fullmatch(inner, text))
    ]
    assert found, f"no text here matches {pattern}: add one"
    return found


_MAKERS = {
    "object": _object,
    "array": _array,
    "boolean": lambda schema, rng: bool(rng.random() < 0.5),
    "string": lambda schema, rng: _one(_texts(schema), rng),
    "integer": _number,
    "number": _number,
}


def borderline(schema, rng):
    """Return values at the border of what the schema accepts, on either side."""
    found = [None]
    for key in ("minimum", "maximum"):
        if key in schema:
            found += [schema[key] + delta for delta in (-1, -1e-9, 0, 1e-9, 1)]
    for key in ("minItems", "maxItems"):
        for number in (schema.get(key, 0), schema.get(key, 0) + 1):
            if "items" in schema:
                found.append([valid(schema["items"], rng) for _ in range(number)])
    if schema.get("type") == "string" or "pattern" in schema:
        longest = min(schema.get("maxLength", 64), 5000)
        found += ["", "a" * longest, "a" * (longest + 1), f"{_one(TEXTS, rng)}\n"]
    if schema.get("type") in ("integer", "number"):
        found += [0, 5.0, 2**53 + 1, 2**63 - 1, 10**20, 1e22, 1e300, 1e-320]
    if schema.get("type") == "object":
        found += [{}, {"unknown": 1}]
    return found


def value(schema, rng):
    """Return a value for a place."""
    chance = rng.random()
    if chance < 0.5:
        return valid(schema, rng)
    return _one(borderline(schema, rng) if chance < 0.75 else WRONG, rng)


def changed(document, rng):
    """Return a document with one place of its spec changed, or taken out."""
    out = copy.deepcopy(document)
    if rng.random() < 0.1:
        made = candidate(int(rng.integers(1, 5)))  # all of a bundle, which only a person changes so
        if isinstance(out.get("spec"), dict) and "candidate" in out["spec"]:
            out["spec"]["candidate"] = made
            return out
    subject = _one(SUBJECTS[out["kind"]], rng)
    path = _one([one for one in PLACES[out["kind"]] if one[:SUBJECT_DEPTH] == subject], rng)
    _change(out, SCHEMAS[out["kind"]], path, rng, value)
    return out


def each_value(document, rng, every=1):
    """Yield the document with each value, valid, borderline and wrong, at each of its places.

    ``every`` is a step: 20 keeps each 20th place and leaves out the others.
    """
    schema = SCHEMAS[document["kind"]]
    for path in PLACES[document["kind"]][::every]:
        inner = schema
        for mark in path:
            key = {"[]": "items", "*": "additionalProperties"}.get(mark)
            inner = inner[key] if key else inner["properties"][mark]
        for one in [valid(inner, rng), valid(inner, rng), *borderline(inner, rng), *WRONG]:
            out = copy.deepcopy(document)
            _change(out, schema, path, None, lambda schema, rng, one=one: copy.deepcopy(one))
            yield path, one, out


def _change(parent, schema, path, rng, value):
    """Change what stands at a path below a value; what is missing above it is made.

    ``rng`` may be ``None``: then it is the first item, or a key of its own, that gets the value.
    """
    mark, *further = path
    made = np.random.default_rng(0) if rng is None else rng
    if mark == "[]" and isinstance(parent, list):
        inner = schema["items"]
        key = 0 if rng is None else int(rng.integers(0, len(parent) + 1))
        if key == len(parent):
            parent.append(valid(inner, made))
    elif mark != "[]" and isinstance(parent, dict):
        if mark == "*":
            key = KEYS[0] if rng is None else _one((*parent, *KEYS), rng)
            inner = schema["additionalProperties"]
        else:
            key, inner = mark, schema["properties"][mark]
        parent.setdefault(key, valid(inner, made))
    else:
        return  # something wrong stands there already
    if further:
        _change(parent[key], inner, further, rng, value)
    elif rng is not None and rng.random() < 0.2:
        del parent[key]
    elif rng is not None and inner.get(OPEN) and rng.random() < 0.5:
        if isinstance(parent[key], dict):
            parent[key][_one(KEYS, rng)] = _one(WRONG, rng)
    else:
        parent[key] = value(inner, rng)


def _one(among, rng):
    return copy.deepcopy(among[int(rng.integers(len(among)))])
