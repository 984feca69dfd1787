"""The tables of the documentation, from the same schemas as the CustomResourceDefinitions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from docs.generators.crd import CATEGORY, RESOURCES, open_api_schema
from docs.generators.structural_schema import Schema
from dwcp_ml.operator.api.parts import RULES_KEY, CustomResource
from dwcp_ml.rollout.reason import REASONS

BEGIN: Final = "<!-- fields: generated -->"
END: Final = "<!-- fields: end -->"

AS_IN_A_POD: Final = ("affinity", "tolerations", "topologySpreadConstraints")
"""Fields whose parts Kubernetes documents."""


def with_reference(page: str) -> str:
    """Return a page with what stands between its two marks brought up to date."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    tables = "\n\n".join([*(reference(resource) for resource in RESOURCES), reasons()])
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def reference(resource: type[CustomResource]) -> str:
    """Return the fields and rules of one resource, as Markdown."""
    names, schema = resource.names, open_api_schema(resource)
    lines = [
        f"## {names.kind}",
        "",
        f"{schema['description']} Listed by `kubectl get {names.short}`, and by "
        f"`kubectl get {CATEGORY}` with the other kind.",
    ]
    for part in ("spec", "status"):
        lines += ["", f"### {names.kind}: {part}", ""]
        lines += ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
        lines += [
            f"| `{path}` | {_type(one)} | {_default(one, required)} | {_cell(one['description'])} |"
            for path, one, required in _fields(schema["properties"][part], "")
        ]
    lines += ["", f"### {names.kind}: what is refused", ""]
    lines += [f"- {message}" for message in dict.fromkeys(_messages(schema))]
    return "\n".join(lines)


def reasons() -> str:
    """Return the closed list of reasons of a ModelRollout, as Markdown."""
    lines = [
        "## Reasons of a ModelRollout",
        "",
        "`status.reason`, and the reasons of conditions and Events. A rollout that waits for one "
        "of them becomes `Stalled` as the second column says.",
        "",
        "| reason | stalled | meaning |",
        "| --- | --- | --- |",
    ]
    lines += [
        f"| `{reason.value}` | {text.stall.value} | {text.description} |"
        for reason, text in REASONS.items()
    ]
    return "\n".join(lines)


def _fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    required = schema.get("required", ())
    for name, one in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, one, name in required
        if name in AS_IN_A_POD:
            continue
        yield from _fields(one, here)
        yield from _fields(one.get("items", {}), f"{here}[]")


def _messages(schema: Schema) -> Iterator[str]:
    for rule in schema.get(RULES_KEY, ()):
        yield rule["message"]
    for one in schema.get("properties", {}).values():
        yield from _messages(one)
    if "items" in schema:
        yield from _messages(schema["items"])


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        return f"list of {_type(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {_type(schema['additionalProperties'])}"
    return f"{schema['type']}{_range(schema)}"


def _range(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    parts = []
    if low is not None:
        parts.append(f"{'>' if schema.get('exclusiveMinimum') else '≥'} {low:g}")
    if high is not None:
        parts.append(f"{'<' if schema.get('exclusiveMaximum') else '≤'} {high:,g}")
    return f" {', '.join(parts)}" if parts else ""


def _default(schema: Schema, required: bool) -> str:
    """Return what an absent field becomes; of an object, the rows below tell it."""
    if required:
        return "needed"
    value = schema.get("default")
    if value is None or value in ([], "") or schema.get("type") == "object":
        return ""
    if schema.get("type") == "array":
        return "; ".join(f"`{_item(one, schema['items'])}`" for one in value)
    return f"`{json.dumps(value) if not isinstance(value, str) else value}`"


def _item(value: Any, schema: Schema) -> str:
    """Return one item of a list's default; of an object, what is not a default of its own."""
    if not isinstance(value, dict):
        return str(value)
    parts = schema["properties"]
    told = {key: one for key, one in value.items() if one != parts[key].get("default")}
    return ", ".join(f"{key}: {one}" for key, one in told.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
