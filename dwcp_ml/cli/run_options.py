"""Command-line options derived from ``RunOptions``: name, type, bounds, default and help.

They are built when a command is parsed or shows its help, because pydantic is slow to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, get_args, get_origin

import annotated_types
import click

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from dwcp_ml.training_run.options import RunOptions

DATA: Final = (
    "data_path",
    "incidents_path",
    "data_start",
    "data_end",
    "packet_loss_unit",
    "congestion_window_unit",
)
GATE: Final = ("kserve_mode", "stable_uri", "storage_prefix", "strict")
TRAINING: Final = (
    *DATA,
    "accept_leak",
    "seed",
    "export_formats",
    "check_api",
    "requests_per_second",
    "champion_rule",
    "trigger",
    *GATE,
)
RUN: Final = ("models", *TRAINING)
"""Options of the commands, by their name in ``RunOptions``."""

_FLAGS: Final = {"export_formats": "--export-format"}
"""Flags that are not the field's name."""


class RunCommand(click.Command):
    """A command with options of ``RunOptions``.

    Parameters
    ----------
    run_options
        Names of fields of ``RunOptions``.
    """

    def __init__(self, *given: Any, run_options: Sequence[str] = (), **named: Any) -> None:
        super().__init__(*given, **named)
        self._pending = tuple(run_options)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all options; those of ``RunOptions`` first."""
        if self._pending:
            self.params[:0] = [_option(name) for name in self._pending]
            self._pending = ()
        return super().get_params(ctx)


class RunGroup(RunCommand, click.Group):
    """A group with options of ``RunOptions``."""


def chosen_options(chosen: dict[str, Any], **others: Any) -> RunOptions:
    """Return the run's options from those of a command; ``others`` replace them.

    Raises
    ------
    UsageError
        If a value is invalid.
    """
    from dwcp_ml.storage.addresses import absolute
    from dwcp_ml.training_run.options import RunOptions, run_options

    values = {
        name: value
        for name, value in chosen.items()
        if name in RunOptions.model_fields and value is not None
    }
    for name in ("data_path", "incidents_path"):
        if name in values:  # a worker may start in another directory
            values[name] = absolute(values[name])
    return run_options(**{**values, **others})


def _option(name: str) -> click.Option:
    from dwcp_ml.contract.models import model_spec
    from dwcp_ml.training_run.options import RunOptions

    field = RunOptions.model_fields[name]
    flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
    text = (field.description or "").replace("`", "")
    help_text = f"{text[:1].upper()}{text[1:]}."
    if field.annotation is bool:
        flags = f"{flag}/--no-{flag[2:]}" if field.default else flag
        return click.Option(
            [flags, name],
            default=field.default,
            is_flag=True,
            show_default=field.default,
            help=help_text,
        )
    default = field.default
    if isinstance(default, tuple):
        words = [model_spec(word).short_name for word in default] if name == "models" else default
        default = ",".join(words)
    return click.Option(
        [flag, name],
        type=_type(field),
        default=None if default == "" else default,
        show_default=default != "",
        metavar=_metavar(name, field),
        help=help_text,
    )


def _type(field: FieldInfo) -> click.ParamType[Any]:
    if get_origin(field.annotation) is Literal:
        return click.Choice(get_args(field.annotation))
    bounds: dict[str, Any] = {}
    for bound in field.metadata:
        match bound:
            case annotated_types.Ge(ge=value):
                bounds["min"] = value
            case annotated_types.Gt(gt=value):
                bounds |= {"min": value, "min_open": True}
            case annotated_types.Le(le=value):
                bounds["max"] = value
    if field.annotation is int:
        return click.IntRange(**bounds)
    if field.annotation is float:
        return click.FloatRange(**bounds)
    return click.STRING


def _metavar(name: str, field: FieldInfo) -> str | None:
    if get_origin(field.annotation) is tuple:
        return "LIST"
    words = {"path": "FILE", "uri": "URI", "prefix": "URI", "start": "TIME", "end": "TIME"}
    return words.get(name.rpartition("_")[2])
