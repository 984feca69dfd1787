"""Give the memory of large bodies back to the system; only where the C library is glibc."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_little() -> None:
    """Keep no large block that was freed.

    By default glibc keeps blocks of up to 32 MiB once one of their size was freed, in an arena of
    each thread: hundreds of MiB after some uploads. See mallopt(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 64 << 10)
        mallopt(_M_TRIM_THRESHOLD, 128 << 10)


def give_back() -> None:
    """Return the free pages between blocks that are in use; takes some milliseconds.

    See malloc_trim(3).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
