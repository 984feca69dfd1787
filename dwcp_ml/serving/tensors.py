"""Convert what a client sent to an array that a model can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.serving.limits import Limits
from dwcp_ml.serving.rejections import BadInput, TooLarge

Rows = NDArray[np.float32]

_CELLS: Final = {int, float, list}
_ONLY_NUMBERS: Final = "Every feature must be a number, not a string, a boolean or null."


def rows_of(instances: object, shape: tuple[int, ...], limits: Limits, *, plain: bool) -> Rows:
    """Return the instances of a V1 request as an array.

    Parameters
    ----------
    instances
        Parsed JSON: a list with one entry of ``shape`` for each instance.
    shape
        Shape of one instance.
    plain
        Whether the text is known to hold no string, boolean or null, so that the check is skipped.

    Returns
    -------
    float32 of shape (n, *shape)

    Raises
    ------
    BadInput, TooLarge
        If it is not such a list, or too long.
    """
    if not isinstance(instances, list) or not instances:
        raise BadInput(
            f"'instances' must be a list of one or more instances of shape {_shown(shape)}.",
            code=ErrorCode.WRONG_TYPE,
            subject="instances",
        )
    _limit_rows(len(instances), limits)
    if not plain:
        _require_numbers(instances)
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


def rows_of_flat(
    data: object, declared: Sequence[int], shape: tuple[int, ...], limits: Limits
) -> Rows:
    """Return the data of a V2 tensor, flat or nested, as an array; like ``rows_of``."""
    check_shape(declared, shape, limits)
    if not isinstance(data, list):
        raise BadInput(
            "'data' must be a list of numbers.", code=ErrorCode.WRONG_TYPE, subject="data"
        )
    _require_numbers(data)
    try:
        cells = np.array(data, np.float64)
    except ValueError:
        raise BadInput(
            "'data' must be flat, or nested like 'shape' says.",
            code=ErrorCode.WRONG_SHAPE,
            subject="data",
        ) from None
    if cells.ndim != 1 and cells.shape != tuple(declared):
        raise BadInput(
            f"'data' has shape {_shown(cells.shape)}, but 'shape' says otherwise.",
            code=ErrorCode.WRONG_SHAPE,
            subject="data",
        )
    return finite(_reshaped(cells, declared))


def rows_of_bytes(
    raw: bytes | memoryview, declared: Sequence[int], shape: tuple[int, ...], limits: Limits
) -> Rows:
    """Return a tensor of little-endian float32 as an array; like ``rows_of``."""
    check_shape(declared, shape, limits)
    if len(raw) % 4:
        raise BadInput(
            f"{len(raw)} bytes are not a multiple of 4, the size of an FP32 value.",
            code=ErrorCode.WRONG_SHAPE,
            subject="bytes",
        )
    return finite(_reshaped(np.frombuffer(raw, "<f4"), declared))


def rows_of_typed(
    values: Sequence[float], declared: Sequence[int], shape: tuple[int, ...], limits: Limits
) -> Rows:
    """Return flat numbers of a known type as an array; like ``rows_of``."""
    check_shape(declared, shape, limits)
    return finite(_reshaped(np.array(values, np.float64), declared))


def check_shape(declared: Sequence[int], shape: tuple[int, ...], limits: Limits) -> None:
    """Reject a declared V2 shape that is not ``(n, *shape)`` with 1 to ``limits.rows`` rows."""
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


def _reshaped(cells: NDArray[Any], declared: Sequence[int]) -> NDArray[Any]:
    size = int(np.prod(declared))
    if cells.size != size:
        raise BadInput(
            f"'shape' requires {size} values, but there are {cells.size}.",
            code=ErrorCode.WRONG_SHAPE,
            subject=f"{cells.size} values",
        )
    return cells.reshape(declared)


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


def _shown(shape: Sequence[object]) -> str:
    sizes = [str(size)[:12] if isinstance(size, int) else "?" for size in shape]
    return f"[{', '.join(sizes)}]"


def _wrong_shape(shape: tuple[int, ...], theirs: str) -> str:
    return f"Every instance must have shape {_shown(shape)}; {theirs}."
