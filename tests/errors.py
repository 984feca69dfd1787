"""Say which error a test expects by its code and its subject; the sentence is for people.

with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "bandwith")):
    create("bandwith")
"""

from __future__ import annotations

from collections.abc import Callable

from dwcp_ml.contract.errors import DwcpError, ErrorCode


def about(code: ErrorCode, subject: object = "") -> Callable[[DwcpError], bool]:
    """Return the check that an error has this code and this subject.

    A failing check shows both sides, which the predicate of ``pytest.raises`` alone does not.
    """

    def check(error: DwcpError) -> bool:
        assert (error.code, error.subject) == (code, str(subject)), error
        return True

    return check
