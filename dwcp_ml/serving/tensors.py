"""Convert what a client sent to an array that a model can read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge

Rows = NDArray[np.float32]

_NUMBERS: Final = {int, float}
_CELLS: Final = {int, float, list}
_ONLY_NUMBERS: Final = "Every feature must be a number, not a string, a boolean or null."


class Form(IntEnum):
    """How the values of a request were written; those of one form become an array together."""

    INSTANCES = 0
    FLAT = 1
    RAW = 2
    ARRAY = 3


@dataclass(slots=True)
class Cells:
    """The values of a request, whose number of rows is checked, before they are an array.

    Parameters
    ----------
    form, values
        A list with one entry for each instance, a flat list of numbers, little-endian float32, or
        an array of shape (rows, ...).
    rows
        How many rows they should be.
    plain
        Whether instances are known to hold no string, boolean or null.
    """

    form: Form
    values: Any
    rows: int
    plain: bool = False


def rows_of_all(group: Sequence[Cells], shape: tuple[int, ...]) -> Rows:
    """Return the values of one or more requests as one array, in their order.

    Parameters
    ----------
    shape
        Shape of one row.

    Returns
    -------
    float32 of shape (n, *shape)

    Raises
    ------
    BadInput
        If those of one of the requests are not such an array; of which one is not told.
    """
    forms = {cells.form for cells in group}
    if len(forms) == 1:
        return _rows_of_form(group, shape)
    return np.concatenate([_rows_of_form([cells], shape) for cells in group])


def _rows_of_form(group: Sequence[Cells], shape: tuple[int, ...]) -> Rows:
    form = group[0].form
    alone = len(group) == 1
    values = group[0].values
    if form is Form.RAW:
        raw = values if alone else b"".join(cells.values for cells in group)
        return finite(np.frombuffer(raw, "<f4").reshape(-1, *shape))
    if form is Form.ARRAY:
        return finite(values if alone else np.concatenate([cells.values for cells in group]))
    together = values if alone else list(chain.from_iterable(cells.values for cells in group))
    if form is Form.INSTANCES:
        if not all(cells.plain for cells in group):
            _require_numbers(together)
        return _of_instances(together, shape)
    kinds = set(map(type, together))
    if list in kinds:
        raise _neither_flat_nor_nested()
    if not kinds <= _NUMBERS:
        raise BadInput(_ONLY_NUMBERS, code=ErrorCode.WRONG_TYPE, subject="feature")
    return finite(np.array(together, np.float64).reshape(-1, *shape))


def _of_instances(instances: list[Any], shape: tuple[int, ...]) -> Rows:
    try:
        cells = np.array(instances, np.float64)
    except TypeError:  # an object among the numbers
        raise BadInput(_ONLY_NUMBERS, code=ErrorCode.WRONG_TYPE, subject="feature") from None
    except ValueError:  # ragged, or deeper than NumPy can hold
        raise BadInput(
            _wrong_shape(shape, "these have different shapes"),
            code=ErrorCode.WRONG_SHAPE,
            subject="instances",
        ) from None
    if cells.shape[1:] != shape:
        raise BadInput(
            _wrong_shape(shape, f"these have {_shown(cells.shape[1:])}"),
            code=ErrorCode.WRONG_SHAPE,
            subject=_shown(cells.shape[1:]),
        )
    return finite(cells)


def cells_of_instances(
    instances: object, shape: tuple[int, ...], limits: Limits, *, plain: bool
) -> Cells:
    """Return the instances of a V1 request.

    Parameters
    ----------
    instances
        Parsed JSON: a list with one entry of ``shape`` for each instance.
    shape
        Shape of one instance.
    plain
        Whether the text is known to hold no string, boolean or null.

    Raises
    ------
    BadInput, TooLarge
        If it is not a list, or too long.
    """
    if not isinstance(instances, list) or not instances:
        raise BadInput(
            f"'instances' must be a list of one or more instances of shape {_shown(shape)}.",
            code=ErrorCode.WRONG_TYPE,
            subject="instances",
        )
    _limit_rows(len(instances), limits)
    return Cells(Form.INSTANCES, instances, len(instances), plain)


def cells_of_data(
    data: object, declared: Sequence[int], shape: tuple[int, ...], limits: Limits
) -> Cells:
    """Return the data of a V2 tensor, flat or nested; like ``cells_of_instances``."""
    size = check_shape(declared, shape, limits)
    if not isinstance(data, list):
        raise BadInput(
            "'data' must be a list of numbers.", code=ErrorCode.WRONG_TYPE, subject="data"
        )
    if not data or type(data[0]) is not list:
        _check_size(len(data), size)
        return Cells(Form.FLAT, data, declared[0])
    _require_numbers(data)
    try:
        cells = np.array(data, np.float64)
    except ValueError:
        raise _neither_flat_nor_nested() from None
    if cells.shape != tuple(declared):
        raise BadInput(
            f"'data' has shape {_shown(cells.shape)}, but 'shape' says otherwise.",
            code=ErrorCode.WRONG_SHAPE,
            subject="data",
        )
    return Cells(Form.ARRAY, cells, declared[0])


def cells_of_bytes(
    raw: bytes | memoryview, declared: Sequence[int], shape: tuple[int, ...], limits: Limits
) -> Cells:
    """Return a tensor of little-endian float32; like ``cells_of_instances``."""
    size = check_shape(declared, shape, limits)
    if len(raw) % 4:
        raise BadInput(
            f"{len(raw)} bytes are not a multiple of 4, the size of an FP32 value.",
            code=ErrorCode.WRONG_SHAPE,
            subject="bytes",
        )
    _check_size(len(raw) // 4, size)
    return Cells(Form.RAW, raw, declared[0])


def cells_of_typed(
    values: Sequence[float], declared: Sequence[int], shape: tuple[int, ...], limits: Limits
) -> Cells:
    """Return flat numbers of a known type; like ``cells_of_instances``."""
    _check_size(len(values), check_shape(declared, shape, limits))
    cells = np.array(values, np.float64).reshape(declared[0], *shape)
    return Cells(Form.ARRAY, cells, declared[0])


def check_shape(declared: Sequence[int], shape: tuple[int, ...], limits: Limits) -> int:
    """Return the number of values of a declared V2 shape.

    Raises
    ------
    BadInput, TooLarge
        If it is not ``(n, *shape)`` with 1 to ``limits.rows`` rows.
    """
    whole = all(isinstance(size, int) and not isinstance(size, bool) for size in declared)
    if not whole or len(declared) != len(shape) + 1 or tuple(declared[1:]) != shape:
        given = _shown(list(declared)[:8])
        raise BadInput(
            f"'shape' must be [n, {_shown(shape)[1:]}, not {given}.",
            code=ErrorCode.WRONG_SHAPE,
            subject="shape",
        )
    if declared[0] < 1:
        raise BadInput(
            "A request must hold at least one row.", code=ErrorCode.OUT_OF_RANGE, subject="rows"
        )
    _limit_rows(declared[0], limits)
    return math.prod(declared)


def finite(cells: NDArray[Any]) -> Rows:
    """Return the cells as float32; reject what float32 can't hold."""
    if cells.dtype == np.float32:
        rows: Rows = cells
    else:
        with np.errstate(over="ignore"):
            rows = cells.astype(np.float32)
    if not np.isfinite(rows).all():
        raise BadInput(
            "Every feature must be a finite number that float32 can hold.",
            code=ErrorCode.NOT_FINITE,
            subject="feature",
        )
    return rows


def _check_size(given: int, size: int) -> None:
    if given != size:
        raise BadInput(
            f"'shape' requires {size} values, but there are {given}.",
            code=ErrorCode.WRONG_SHAPE,
            subject=f"{given} values",
        )


def _limit_rows(rows: int, limits: Limits) -> None:
    if rows > limits.rows:
        raise TooLarge(
            f"A request may hold at most {limits.rows} rows, not {rows}: send it in parts.",
            code=ErrorCode.TOO_LARGE,
            subject="rows",
        )


def _require_numbers(cells: list[Any]) -> None:
    """Reject what NumPy would convert to numbers, text above all, or to an array of any size."""
    waiting = [cells]
    while waiting:
        part = waiting.pop()
        kinds = set(map(type, part))
        if not kinds <= _CELLS:
            raise BadInput(_ONLY_NUMBERS, code=ErrorCode.WRONG_TYPE, subject="feature")
        if list in kinds:
            waiting += [item for item in part if type(item) is list]


def _neither_flat_nor_nested() -> BadInput:
    return BadInput(
        "'data' must be flat, or nested like 'shape' says.",
        code=ErrorCode.WRONG_SHAPE,
        subject="data",
    )


def _shown(shape: Sequence[object]) -> str:
    sizes = [str(size)[:12] if isinstance(size, int) else "?" for size in shape]
    return f"[{', '.join(sizes)}]"


def _wrong_shape(shape: tuple[int, ...], theirs: str) -> str:
    return f"Every instance must have shape {_shown(shape)}; {theirs}."
