"""Everything that can go wrong on purpose, and the exit code that says so.

    DwcpError            1  anything that has no better name
    ├── UsageError       2  the command line, the settings or a name was wrong
    ├── GateRejected     3  the gate said REJECTED
    ├── DataRefused      4  the telemetry or the incidents were refused
    ├── BundleRefused    1  a bundle is incomplete, changed or unsafe
    ├── ExportFailed     1  an export does not equal what was trained
    ├── TrainingFailed   1  a model could not be trained
    ├── RolledBack       5  a rollout took its candidate back
    ├── RunFailed        6  a run on Kubeflow failed, was cancelled, or ended without an answer
    └── RunUnfinished    7  a run on Kubeflow did not end in the time that it was waited for

A message is one sentence: what, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class DwcpError(Exception):
    """Base of every error that a user may see; the message is one sentence."""

    exit_code = 1


class UsageError(DwcpError):
    """The command line, the settings file or a name in them was wrong."""

    exit_code = 2


class GateRejected(DwcpError):
    """The gate looked at the models and said REJECTED."""

    exit_code = 3


class DataRefused(DwcpError):
    """The input data break the contract; nothing was written."""

    exit_code = 4


class BundleRefused(DwcpError):
    """A bundle is incomplete, changed since it was written, or unsafe to load."""


class ExportFailed(DwcpError):
    """An exported model does not answer like the model that was trained."""


class TrainingFailed(DwcpError):
    """A model could not be trained on this data; the message says why."""


class RolledBack(DwcpError):
    """A rollout ended with the candidate taken back."""

    exit_code = 5


class RunFailed(DwcpError):
    """A run on Kubeflow failed, was cancelled, or ended without the gate's answer."""

    exit_code = 6


class RunUnfinished(DwcpError):
    """A run on Kubeflow had not ended when the time to wait for it was over; it goes on."""

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
