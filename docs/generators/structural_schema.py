"""A pydantic type -> a structural schema, as a CustomResourceDefinition wants it.

Structural: every value has one type; there are no references, no alternatives and no
``additionalProperties: false`` (the API server drops what is not listed). What can't be said so is
refused here, not left to the API server.

An optional field is one that may be absent. ``null`` is not a value of its own: the API server
removes it from a field that is not ``nullable``, and a merge patch removes the field. So a type may
give an optional field no other default than ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.operator.api.parts import RULES_KEY

Schema = dict[str, Any]

_COPIED: Final = (
    "type",
    "format",
    "pattern",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "required",
)
_EXTENSIONS: Final = (RULES_KEY, "x-kubernetes-list-type", "x-kubernetes-list-map-keys")
_HANDLED: Final = frozenset(
    (
        *_COPIED,
        *_EXTENSIONS,
        "$defs",
        "$ref",
        "additionalProperties",
        "anyOf",
        "const",
        "default",
        "description",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "items",
        "properties",
        "title",
    )
)
_NUMBERS: Final = {"integer": "int64", "number": "double"}


def structural(type_: type[BaseModel], *, defaults: bool = True) -> Schema:
    """Return the structural schema of a type.

    Parameters
    ----------
    defaults
        Whether the API server fills absent fields in; not desired in a status.

    Raises
    ------
    DwcpError
        If the type can't be said so; the message names the place.
    """
    schema = type_.model_json_schema(by_alias=True)
    return _Writer(schema.get("$defs", {}), defaults).write(schema, type_.__name__)


class _Writer:
    def __init__(self, definitions: Mapping[str, Schema], defaults: bool) -> None:
        self._definitions = definitions
        self._defaults = defaults

    def write(self, given: Schema, where: str) -> Schema:
        given = self._without_null(self._resolved(given), where)
        unknown = sorted(given.keys() - _HANDLED)
        if unknown:
            raise DwcpError(f"{where}: '{unknown[0]}' has no place in a structural schema.")
        out: Schema = {}
        if "description" in given:
            out["description"] = " ".join(given["description"].replace("``", "`").split())
        if "anyOf" in given:
            out |= self._int_or_string(given, where)
        out |= {key: given[key] for key in _COPIED if key in given}
        if "const" in given:
            out["enum"] = [given["const"]]
        if out.get("type") in _NUMBERS:
            out.setdefault("format", _NUMBERS[out["type"]])
        out |= _exclusive(given)
        if out.get("type") == "object":
            out |= self._object(given, where)
        if out.get("type") == "array":
            out["items"] = self.write(given["items"], f"{where}[]")
        if self._defaults and given.get("default") is not None:
            out["default"] = _without_none(given["default"])
        out |= {key: given[key] for key in _EXTENSIONS if key in given}
        if "type" not in out and "x-kubernetes-int-or-string" not in out:
            raise DwcpError(f"{where}: a value of any type can't be checked; give it one.")
        return out

    def _resolved(self, given: Schema) -> Schema:
        """Return the schema with the definition that it refers to written out."""
        if "$ref" not in given:
            return given
        name = given["$ref"].rpartition("/")[2]
        own = {key: value for key, value in given.items() if key != "$ref"}
        return {**self._resolved(self._definitions[name]), **own}

    def _without_null(self, given: Schema, where: str) -> Schema:
        """Return the schema of ``X | None`` as that of an ``X`` that may be absent."""
        others = [one for one in given.get("anyOf", ()) if one.get("type") != "null"]
        if len(others) == len(given.get("anyOf", ())):
            return given
        if given.get("default") is not None or len(others) != 1:
            raise DwcpError(f"{where}: null can only stand for an absent field.")
        own = {key: value for key, value in given.items() if key not in ("anyOf", "default")}
        return {**self._resolved(others[0]), **own}

    def _int_or_string(self, given: Schema, where: str) -> Schema:
        if [one.get("type") for one in given["anyOf"]] != ["integer", "string"]:
            raise DwcpError(f"{where}: only 'int or string' may be of two types.")
        text = given["anyOf"][1]
        bounds = {key: text[key] for key in ("pattern", "maxLength") if key in text}
        return {"x-kubernetes-int-or-string": True, **bounds}

    def _object(self, given: Schema, where: str) -> Schema:
        out: Schema = {}
        if "properties" in given:
            out["properties"] = {
                name: self.write(one, f"{where}.{name}")
                for name, one in given["properties"].items()
            }
        more = given.get("additionalProperties", False)
        if isinstance(more, dict):
            out["additionalProperties"] = self.write(more, f"{where}.*")
        elif more:
            out["x-kubernetes-preserve-unknown-fields"] = True
        return out


def _exclusive(given: Schema) -> Schema:
    """Return the bounds that a value may not reach, as OpenAPI 3.0 writes them."""
    out: Schema = {}
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in given:
            out |= {bound: given[exclusive], exclusive: True}
    return out


def _without_none(value: Any) -> Any:
    """Return a default without what is absent in it.

    Parts that have defaults of their own are written out all the same: the API server checks the
    rules of a default before it fills it in.
    """
    if isinstance(value, list):
        return [_without_none(one) for one in value]
    if isinstance(value, dict):
        return {name: _without_none(one) for name, one in value.items() if one is not None}
    return value
