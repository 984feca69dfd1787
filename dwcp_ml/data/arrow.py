"""Conversions between Arrow and NumPy that share buffers.

``pa.array``, ``pa.scalar`` and ``Array.to_numpy`` do the same but import pandas first, which takes
longer than the validation of 50 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dwcp_ml.contract.arrays import Array, Mask


def null_mask(array: Any) -> Mask | None:
    """Return which cells are null, ``None`` for none."""
    if array.null_count == 0:
        return None
    validity = array.buffers()[0]
    if validity is None:  # an array of type null
        return np.ones(len(array), np.bool_)
    return ~_bits(validity, array.offset, len(array))


def _bits(buffer: Any, offset: int, length: int) -> Mask:
    packed = np.frombuffer(buffer, np.uint8)
    bits = np.unpackbits(packed, count=offset + length, bitorder="little")
    return bits[offset:].astype(np.bool_)


def values_of(array: Any) -> Array:
    """Return the values of a numeric or boolean array; values of null cells are arbitrary.

    The result may share the array's memory and is then read-only.
    """
    length, offset, dtype = len(array), array.offset, array.type.to_pandas_dtype()
    if length == 0:
        return np.empty(0, dtype)
    data = array.buffers()[1]
    if pa.types.is_boolean(array.type):
        return _bits(data, offset, length)
    return np.frombuffer(data, dtype, offset + length)[offset:]


def array_of(values: Array, mask: Mask | None = None) -> Any:
    """Return a numeric numpy array as an Arrow array, null where ``mask`` is True."""
    kind = pa.from_numpy_dtype(values.dtype)
    data = pa.py_buffer(np.ascontiguousarray(values))
    validity = None
    if mask is not None and mask.any():
        validity = pa.py_buffer(np.packbits(~mask, bitorder="little"))
    return pa.Array.from_buffers(kind, len(values), [validity, data])


def strings_of(words: Sequence[str]) -> Any:
    """Return an Arrow array of strings."""
    builder = pa.lib.StringBuilder()
    builder.append_values(words)
    return builder.finish()
