"""Checks of a run: the live endpoint, the Go client, readiness for a rollout."""

from __future__ import annotations

from pydantic import Field

from dwcp_ml.contract.record import Record


class Check(Record):
    """One check and its result."""

    name: str = Field(description="what was checked, e.g. 'bandwidth_predictor: V1 response'")
    passed: bool
    detail: str = Field(default="", description="why it failed; empty where it passed")


class StepTime(Record):
    """How long one step takes with simulated traffic and a candidate as good as the stable."""

    traffic_percent: int
    median_seconds: float | None = Field(
        description="null if fewer than half of the simulated steps were decided"
    )
    p90_seconds: float | None = Field(
        description="null if fewer than 90 % of the simulated steps were decided"
    )


class Readiness(Record):
    """Whether a rollout could be decided with the expected traffic; informative, never a veto."""

    ready: bool
    requests_per_second: float = Field(description="assumed traffic of both arms together")
    step_seconds: float = Field(description="longest time of a step, seconds")
    checks: tuple[Check, ...]
    steps: tuple[StepTime, ...] = ()

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def sentence(self) -> str:
        """The result as a sentence."""
        if self.failed:
            return " ".join(check.detail for check in self.failed)
        times = ", ".join(
            f"{step.traffic_percent} % in {step.p90_seconds / 60:.0f} min"
            for step in self.steps
            if step.p90_seconds is not None
        )
        return (
            f"At {self.requests_per_second:g} requests/s nine of ten good candidates pass {times}."
        )


class ApiChecks(Record):
    """Check -> gate: whether the models keep the contract, and Go can call them.

    ``None`` is "not checked", with the reason in ``unchecked``; it is never an approval.
    """

    integration_tests_passed: bool | None = Field(
        description="contract tests of the model server, and the Go integration tests"
    )
    go_api_compatibility: bool | None = Field(
        description="the compiled Go package against the frozen interface"
    )
    unchecked: dict[str, str] = Field(
        default_factory=dict, description="field -> why it was not checked"
    )
    checks: tuple[Check, ...] = ()
    readiness: Readiness | None = Field(
        default=None, description="readiness for a rollout; null where it was not checked"
    )

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @classmethod
    def not_run(cls, why: str) -> ApiChecks:
        """Return the record of a run whose interfaces were not checked."""
        names = ("integration_tests_passed", "go_api_compatibility")
        return cls(
            integration_tests_passed=None,
            go_api_compatibility=None,
            unchecked=dict.fromkeys(names, why),
        )
