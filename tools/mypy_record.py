"""A mypy plugin: ``Record.replace(field=value)`` is checked as the constructor is.

mypy knows which keyword arguments ``dataclasses.replace`` takes, but not those of a method that
replaces fields of a pydantic model. Its arguments are the fields, with their types, all optional.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.nodes import ARG_NAMED_OPT, Var
from mypy.plugin import MethodSigContext, Plugin
from mypy.types import (
    AnyType,
    CallableType,
    FunctionLike,
    Instance,
    Type,
    TypeOfAny,
    get_proper_type,
)

METHOD = "dwcp_ml.contract.record.Record.replace"


class RecordPlugin(Plugin):
    """Gives ``Record.replace`` the keyword arguments of the record that it is called on."""

    def get_method_signature_hook(
        self, fullname: str
    ) -> Callable[[MethodSigContext], FunctionLike] | None:
        """Return the hook for ``replace`` of a record, of whichever class it is called."""
        return _signature if fullname.rpartition(".")[2] == "replace" else None


def _signature(context: MethodSigContext) -> FunctionLike:
    default = context.default_signature
    owner = get_proper_type(context.type)
    if not isinstance(owner, Instance) or not isinstance(default, CallableType):
        return default
    method = owner.type.get_method("replace")
    fields = owner.type.metadata.get("pydantic-mypy-metadata", {}).get("fields")
    if method is None or method.fullname != METHOD or fields is None:
        return default
    types = {name: _type_of(owner, name) for name in fields}
    return default.copy_modified(
        arg_names=list(types),
        arg_kinds=[ARG_NAMED_OPT] * len(types),
        arg_types=list(types.values()),
        ret_type=owner,
    )


def _type_of(owner: Instance, name: str) -> Type:
    symbol = owner.type.get(name)
    known = symbol is not None and isinstance(symbol.node, Var) and symbol.node.type
    return known or AnyType(TypeOfAny.special_form)


def plugin(version: str) -> type[Plugin]:
    """Return the plugin, whatever the version of mypy."""
    del version
    return RecordPlugin
