"""The errors that a user may see, each with its exit code.

    DwcpError            1  any other error
    ├── UsageError       2  the command line, the settings or a name was wrong
    ├── GateRejected     3  the gate rejected a model
    ├── DataRefused      4  the telemetry or the incidents break the contract
    ├── BundleRefused    1  a bundle is incomplete, changed or unsafe
    ├── ExportFailed     1  an export differs from the trained model
    ├── TrainingFailed   1  a model could not be trained
    ├── RolledBack       5  a rollout was rolled back
    ├── RunFailed        6  a run on Kubeflow failed, was cancelled, or ended without a verdict
    └── RunUnfinished    7  a run on Kubeflow did not end before the timeout

A message is one sentence for people: what is wrong, where, and what to do. Programs and tests read
the class, ``code`` and ``subject`` instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import StrEnum
from typing import Final


class ErrorCode(StrEnum):
    """What is wrong, for programs; the message says it to people."""

    UNSPECIFIED = "Unspecified"
    ALREADY_EXISTS = "AlreadyExists"
    AMBIGUOUS = "Ambiguous"
    CANT_READ = "CantRead"
    CANT_WRITE = "CantWrite"
    CHANGED = "Changed"
    CONFLICT = "Conflict"
    CONTRACT = "ContractViolated"
    DISK_FULL = "DiskFull"
    ENCRYPTED = "Encrypted"
    FORBIDDEN = "Forbidden"
    INCOMPLETE = "Incomplete"
    INVALID_ADDRESS = "InvalidAddress"
    INVALID_OPTION = "InvalidOption"
    MALFORMED = "Malformed"
    MISMATCH = "Mismatch"
    MISSING = "Missing"
    NO_DATA = "NoData"
    NO_RESPONSE = "NoResponse"
    NOT_FINITE = "NotFinite"
    NOT_TRAINED = "NotTrained"
    OUT_OF_RANGE = "OutOfRange"
    SIGNATURE = "InvalidSignature"
    STATUS = "HttpStatus"
    TIMEOUT = "Timeout"
    TOO_FEW = "TooFew"
    TOO_LARGE = "TooLarge"
    TOO_OLD = "TooOld"
    UNKNOWN_NAME = "UnknownName"
    UNSAFE = "Unsafe"
    UNSIGNED = "Unsigned"
    UNSUPPORTED = "Unsupported"
    WRONG_KEY = "WrongKey"
    WRONG_SHAPE = "WrongShape"
    WRONG_TYPE = "WrongType"


class CodedError(Exception):
    """An error that says to programs, too, what is wrong.

    Parameters
    ----------
    message
        One sentence for people.
    code
        What is wrong.
    subject
        What it is wrong with: the name of a file, column, option, output or model.
    """

    def __init__(
        self,
        message: object = "",
        *,
        code: ErrorCode = ErrorCode.UNSPECIFIED,
        subject: object = "",
    ) -> None:
        super().__init__(message)
        self.code: Final = code
        self.subject: Final = str(subject)


class DwcpError(CodedError):
    """Base of every error that a user may see."""

    exit_code = 1


class UsageError(DwcpError):
    """The command line, the settings file or a name in them was wrong."""

    exit_code = 2


class GateRejected(DwcpError):
    """The gate rejected at least one model."""

    exit_code = 3


class DataRefused(DwcpError):
    """The input data break the contract; nothing was written."""

    exit_code = 4


class BundleRefused(DwcpError):
    """A bundle is incomplete, changed since it was written, or unsafe to load."""


class ExportFailed(DwcpError):
    """An exported model predicts otherwise than the trained model."""


class TrainingFailed(DwcpError):
    """A model could not be trained on this data; the message says why."""


class RolledBack(DwcpError):
    """A rollout ended with a roll-back of the candidate."""

    exit_code = 5


class RunFailed(DwcpError):
    """A run on Kubeflow failed, was cancelled, or ended without the gate's verdict."""

    exit_code = 6


class RunUnfinished(DwcpError):
    """A run on Kubeflow did not end before the timeout; it continues."""

    exit_code = 7


def did_you_mean(word: str, allowed: Iterable[str]) -> str:
    """Return a clause that lists the allowed words and the nearest one, if any.

    >>> did_you_mean("bandwith", ["bandwidth", "latency"])
    "did you mean 'bandwidth'? Allowed: bandwidth, latency"
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}Allowed: {', '.join(names)}"
