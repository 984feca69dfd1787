"""Say which error a test expects by its code and its subject; the sentence is for people.

with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "bandwith")):
    create("bandwith")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dwcp_ml.contract.errors import ErrorCode


def about(code: ErrorCode, subject: object = "") -> Callable[[Any], bool]:
    """Return the check that an error has this code and this subject, or a path that ends in it.

    A failing check shows both sides, which the predicate of ``pytest.raises`` alone does not.
    """

    def check(error: Any) -> bool:
        expected = str(subject)
        assert error.code is code, (error.code, error)
        same = error.subject == expected
        part = bool(expected) and error.subject.endswith((f"/{expected}", f": {expected}"))
        assert same or part, (error.subject, expected)
        return True

    return check


def coded(code: ErrorCode) -> Callable[[Any], bool]:
    """Return the check that an error has this code, whatever it is about."""

    def check(error: Any) -> bool:
        assert error.code is code, (error.code, error)
        return True

    return check
