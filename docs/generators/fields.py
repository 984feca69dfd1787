"""The fields of a typed class as the rows of a table: name, type with bounds, default, meaning."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

Schema = dict[str, Any]

HEAD: Final = "| key | type | default | meaning |\n| --- | --- | --- | --- |"

_NAMES: Final = {
    "integer": "integer", "number": "number", "string": "text", "boolean": "`true` or `false`",
    "null": "`null`",
}  # fmt: skip
_FORMATS: Final = {"path": "path", "date-time": "time"}
ABSENT: Final = object()
"""A key without a default."""

BAR: Final = "\\|"
"""A vertical bar inside a cell."""


class Row(NamedTuple):
    """One key of a settings file."""

    key: str
    type: str
    default: Any
    meaning: str


def rows_of(kind: type[BaseModel], defaults: Mapping[str, Any] | None = None) -> list[Row]:
    """Return a row for each key of a class, sections first to last, their keys with dots.

    Parameters
    ----------
    defaults
        What a file of defaults says; a key that is missing there has the default of the class.
    """
    schema = kind.model_json_schema()
    return list(_rows(schema, schema.get("$defs", {}), defaults or {}, ""))


def table(rows: Iterable[Row]) -> str:
    """Return rows as a Markdown table."""
    return "\n".join(
        [HEAD, *(line((f"`{row.key}`", row.type, shown(row.default), row.meaning)) for row in rows)]
    )


def line(cells: Iterable[str]) -> str:
    """Return one line of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"


def shown(value: Any) -> str:
    """Return a value as a settings file holds it."""
    return "" if value is ABSENT else f"`{json.dumps(value, ensure_ascii=False)}`"


def _rows(
    schema: Schema, shared: dict[str, Schema], defaults: Mapping[str, Any], path: str
) -> Iterator[Row]:
    for name, given in schema["properties"].items():
        key = f"{path}{name}"
        default = defaults.get(name, given.get("default", ABSENT))
        one, optional = _resolved(given, shared)
        inner = default if isinstance(default, Mapping) else {}
        if "properties" not in one:
            yield Row(key, _type(given, shared), default, given.get("description", ""))
            yield from _items(one, shared, key)
        else:
            if optional:
                meaning = given.get("description") or one["description"]
                yield Row(
                    key, "section or `null`", default and ABSENT, phrase(meaning.splitlines()[0])
                )
            yield from _rows(one, shared, inner, f"{key}.")


def _items(schema: Schema, shared: dict[str, Schema], key: str) -> Iterator[Row]:
    """Yield the keys of a list's items, where those are sections."""
    item, _ = _resolved(schema.get("items", {}), shared)
    if "properties" in item:
        yield from _rows(item, shared, {}, f"{key}[].")


def _resolved(schema: Schema, shared: dict[str, Schema]) -> tuple[Schema, bool]:
    """Return what a schema points at, and whether it may be null instead."""
    if "$ref" in schema:
        return shared[schema["$ref"].rpartition("/")[2]], False
    others = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    if len(others) == 1 and len(schema["anyOf"]) == 2:
        return _resolved(others[0], shared)[0], True
    return schema, False


def _type(schema: Schema, shared: dict[str, Schema]) -> str:
    if "$ref" in schema:
        return _type(_resolved(schema, shared)[0], shared)
    if "anyOf" in schema:
        return " or ".join(_type(one, shared) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return _list(schema, shared)
    if schema["type"] == "object":
        values = schema.get("additionalProperties")
        return f"map of {_type(values, shared)}" if isinstance(values, dict) else "map"
    return _FORMATS.get(schema.get("format", ""), _NAMES[schema["type"]]) + _range(schema)


def _list(schema: Schema, shared: dict[str, Schema]) -> str:
    if "prefixItems" in schema:
        parts = [_type(one, shared) for one in schema["prefixItems"]]
        return f"list of {len(parts)}: {parts[0] if len(set(parts)) == 1 else ', '.join(parts)}"
    return f"list of {_type(schema['items'], shared)}"


def _range(schema: Schema) -> str:
    """Return the bounds of a number, with the sign in front: `` ≥ 1, < 10``."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    parts = [f"{sign} {number(schema[key])}" for key, sign in signs.items() if key in schema]
    return f" {', '.join(parts)}" if parts else ""


def number(value: float) -> str:
    """Return a number with every digit, thousands apart."""
    return f"{int(value):,}" if float(value).is_integer() else f"{value:g}"


def phrase(text: str) -> str:
    """Return a sentence as it stands in a table: no capital, no full stop, Markdown's quotes."""
    plain = " ".join(text.split()).replace("``", "`").removesuffix(".")
    first = plain.partition(" ")[0]
    ordinary = first.istitle() and first not in ("Kubeflow", "Prometheus")
    return plain[:1].lower() + plain[1:] if ordinary else plain
