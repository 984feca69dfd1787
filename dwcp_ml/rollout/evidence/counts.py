"""Raw counts of both arms since the last reconciliation."""

from __future__ import annotations

from typing import Final, Self

from pydantic import Field, model_validator

from dwcp_ml.contract.records import Record

WINDOW_REQUESTS: Final = 1000


class Counts(Record):
    """Requests of one arm, and how many of them failed (or were slow)."""

    requests: int = Field(default=0, ge=0)
    errors: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _errors_are_requests(self) -> Self:
        if self.errors > self.requests:
            raise ValueError(f"{self.errors} errors are more than {self.requests} requests")
        return self

    def __add__(self, other: Counts) -> Counts:
        return Counts(requests=self.requests + other.requests, errors=self.errors + other.errors)

    @property
    def rate(self) -> float:
        """Errors a request; 0 without requests."""
        return self.errors / self.requests if self.requests else 0.0


class CountBlock(Record):
    """Both arms over the same time: differences of counters, resets taken out."""

    candidate: Counts = Counts()
    stable: Counts = Counts()

    @property
    def empty(self) -> bool:
        """True when nothing was counted in either arm."""
        return not (self.candidate.requests or self.stable.requests)


class WorstWindow(Record):
    """The highest error rate of an arm over windows of at least ``WINDOW_REQUESTS``."""

    open: Counts = Field(default=Counts(), description="the window that is not full yet")
    rate: float = Field(default=0.0, ge=0, le=1, description="errors a request in the worst one")

    def update(self, counts: Counts) -> Self:
        """Return it with the counts since the last update."""
        if not counts.requests:
            return self
        total = self.open + counts
        if total.requests < WINDOW_REQUESTS:
            return type(self)(open=total, rate=self.rate)
        return type(self)(rate=max(self.rate, total.rate))
