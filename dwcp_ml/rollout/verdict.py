"""The result of one sequential test, in numbers and as a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from pydantic import Field, FiniteFloat

from dwcp_ml.contract.errors import UsageError
from dwcp_ml.contract.record import Record


class Outcome(StrEnum):
    """The outcome of a test; only ``PASS`` lets a step pass."""

    PASS = "Pass"  # noqa: S105 - not a password
    FAIL = "Fail"
    INSUFFICIENT_DATA = "InsufficientData"
    ERROR = "Error"
    """The data of the test can't be had."""


MAX_EVIDENCE: Final = 1e300

_DIGITS: Final = tuple(f"%.{digits}f" for digits in range(7))


class Verdict(Record):
    """The verdict of one test, in numbers and in one sentence."""

    test: str
    outcome: Outcome
    value: FiniteFloat | None = Field(
        default=None, description="observed, e.g. the candidate's error rate"
    )
    bound: FiniteFloat | None = Field(
        default=None, description="confidence bound of the value, valid at every reconciliation"
    )
    threshold: FiniteFloat | None = Field(
        default=None, description="what the value or its bound is compared with"
    )
    evidence: FiniteFloat | None = Field(
        default=None, ge=0, description="e-value or capital; 1 is none"
    )
    needed: FiniteFloat | None = Field(default=None, description="evidence that decides: 1/alpha")
    samples: int = Field(default=0, ge=0, description="observations of the candidate so far")
    sentence: str = Field(description="the same in one sentence")

    @property
    def progress(self) -> float:
        """How far the evidence has come: log(evidence) / log(needed), 0 to 1; 1 decides.

        What it decides is the outcome: harm where that is ``FAIL``, or the test passes nothing;
        that there is none otherwise.
        """
        if self.evidence is None or self.needed is None or min(self.evidence, self.needed) <= 1.0:
            return 0.0
        return min(math.log(self.evidence) / math.log(self.needed), 1.0)


def evidence_summary(verdicts: Iterable[Verdict]) -> str:
    """Return how far each test has come in one line: ``error_rate 63 %, latency Pass``.

    A test that is decided, or has no data, shows its outcome.
    """
    return ", ".join(
        f"{each.test} {math.floor(100 * each.progress)} %"
        if each.outcome is Outcome.INSUFFICIENT_DATA
        else f"{each.test} {each.outcome.value}"
        for each in verdicts
    )


def unavailable(test: str, sentence: str) -> Verdict:
    """Return the verdict of a test whose data can't be had."""
    return Verdict(test=test, outcome=Outcome.ERROR, sentence=sentence)


def combined(harm: Verdict, promotion: Verdict) -> Verdict:
    """Combine the harm test and the promotion test of one metric.

    Harm that is shown, or a metric that can't be read, wins; else promotion decides. A test of
    harm alone never passes anything: that nothing was found is not evidence that all is well.
    """
    return harm if harm.outcome in (Outcome.FAIL, Outcome.ERROR) else promotion


def check_alpha(alpha: float) -> float:
    """Return alpha if it lies strictly between 0 and 1.

    Raises
    ------
    UsageError
        If it does not.
    """
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"alpha must lie strictly between 0 and 1, not {alpha}.")
    return alpha


def evidence_of(log_evidence: float) -> float:
    """Return exp(log_evidence), limited to ``MAX_EVIDENCE``, which JSON can hold."""
    return math.exp(min(log_evidence, math.log(MAX_EVIDENCE)))


def percent(share: float) -> str:
    """Write a share as a percentage of two significant digits, ``0.0312`` as ``3.1 %``."""
    value = 100.0 * share
    if value == 0.0 or value >= 10.0:
        return f"{value:.0f} %" if value in (0.0, 100.0) else f"{value:.1f} %"
    digits = 1
    while digits < 6 and value * 10.0 ** (digits - 1) < 1.0:
        digits += 1
    return (_DIGITS[digits] % value).rstrip("0").rstrip(".") + " %"


def figure(value: float) -> str:
    """Write an e-value: two significant digits below 10, thousands separated, then powers."""
    if value >= 1e6:
        return f"{value:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:,.0f}" if value >= 10.0 else f"{value:.2g}"
