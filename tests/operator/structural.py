"""Which rules of a structural schema a schema breaks; written from the Kubernetes documentation.

Extend the API > Custom resources > Specifying a structural schema, and > Validation rules. Our own
schemas use no logical junctors, so none is allowed here, but for the one form of int-or-string that
the extension of that name stands for.
"""

_KEYWORDS = {
    "object": {"properties", "additionalProperties", "required", "maxProperties"},
    "array": {"items", "minItems", "maxItems", "x-kubernetes-list-type"}
    | {"x-kubernetes-list-map-keys"},
    "string": {"minLength", "maxLength", "pattern"},
    "integer": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "boolean": set(),
    None: {"pattern", "maxLength", "x-kubernetes-int-or-string"},
}
_ANY = {"type", "format", "description", "default", "enum", "nullable", "x-kubernetes-validations"}
_OPEN, _BOTH = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"
_FORMATS = {"int64", "double", "date-time"}
_VALUES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
_ROOT = {"apiVersion", "kind", "metadata"}


def breaches(schema, path="", root=True):
    """Yield a sentence for each rule that is broken, with the place."""
    at = path or "."
    kind = schema.get("type")
    if kind is None and not schema.get(_BOTH):
        yield f"{at}: a type is needed"
    if not isinstance(kind, str | None) or kind not in _KEYWORDS:
        yield f"{at}: there is no type {kind!r}"
        return
    allowed = _ANY | _KEYWORDS[kind] | ({_OPEN} if kind == "object" else set())
    for key in sorted(schema.keys() - allowed):
        yield f"{at}: {key} is not allowed in a {kind or 'value'}"
    if schema.get("format", "int64") not in _FORMATS:
        yield f"{at}: format {schema['format']!r} is not checked by anybody"
    yield from _bounds(schema, at)
    yield from _default(schema, at)
    yield from _rules(schema, at)
    if kind == "object":
        yield from _object(schema, path, root)
    if kind == "array":
        yield from _array(schema, path)


def _bounds(schema, at):
    for exclusive, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in schema and (schema[exclusive] is not True or bound not in schema):
            yield f"{at}: {exclusive} is true or absent, and stands beside {bound}"


def _default(schema, at):
    if "default" not in schema or schema.get(_BOTH):
        return
    value, kind = schema["default"], schema.get("type")
    right = (
        isinstance(value, (int, float)) if kind == "number" else isinstance(value, _VALUES[kind])
    )
    if not right or (kind != "boolean" and isinstance(value, bool)):
        yield f"{at}: the default {value!r} is no {kind}"
    if kind == "object" and not schema.get(_OPEN):
        for name in sorted(value.keys() - schema.get("properties", {}).keys()):
            yield f"{at}: the default would lose {name!r}"


def _rules(schema, at):
    for rule in schema.get("x-kubernetes-validations", ()):
        if set(rule) != {"rule", "message"} or "\n" in rule["message"] or not rule["message"]:
            yield f"{at}: a rule has a rule and a message of one line"


def _object(schema, path, root):
    at = path or "."
    if "properties" in schema and "additionalProperties" in schema:
        yield f"{at}: properties and additionalProperties exclude each other"
    if schema.get(_OPEN, True) is not True:
        yield f"{at}: {_OPEN} is true or absent"
    if not schema.keys() & {"properties", "additionalProperties", _OPEN} and path != "metadata":
        yield f"{at}: an object without fields keeps nothing"
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in properties:
            yield f"{at}: {name!r} is required and not listed"
    if root:
        yield from _of_the_api_server(properties)
    for name, one in properties.items():
        yield from breaches(one, f"{path}.{name}".lstrip("."), False)
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        yield from breaches(more, f"{path}.*", False)
    elif more is not None:
        yield f"{at}: additionalProperties is a schema"


def _of_the_api_server(properties):
    if not properties.keys() >= _ROOT:
        yield "apiVersion, kind and metadata must be listed"
    if properties.get("metadata") != {"type": "object"}:
        yield "metadata is the API server's: only its type may be given"
    for name in ("apiVersion", "kind"):
        if properties.get(name, {}).get("type") != "string":
            yield f"{name} is a string"


def _array(schema, path):
    at = path or "."
    if not isinstance(schema.get("items"), dict):
        yield f"{at}: items is one schema"
        return
    yield from breaches(schema["items"], f"{path}[]", False)
    list_type, items = schema.get("x-kubernetes-list-type", "atomic"), schema["items"]
    keys = schema.get("x-kubernetes-list-map-keys", ())
    if list_type not in ("atomic", "set", "map"):
        yield f"{at}: there is no list type {list_type!r}"
    if list_type == "set" and items.get("type") in ("object", "array"):
        yield f"{at}: a set is of plain values"
    if (list_type == "map") != bool(keys):
        yield f"{at}: a list of type map, and no other, has keys"
    for key in keys:
        one = items.get("properties", {}).get(key)
        needed = key in items.get("required", ()) or "default" in (one or {})
        if one is None or not needed or one.get("type") in ("object", "array"):
            yield f"{at}: key {key!r} must be a plain value that is always there"
