"""Readiness for an A/B test in the run's report: shown, and never a reason to reject."""

import pytest

from dwcp_ml.contract.checks import Check, Readiness, StepTime
from dwcp_ml.evaluation import gate_model, gate_session, session_html, session_markdown


def readiness(passed):
    detail = "" if passed else "at 1 requests/s the step of 1 % is not decided within 2 h."
    return Readiness(
        ready=passed,
        requests_per_second=1.0,
        step_seconds=7200.0,
        checks=(Check(name="traffic decides each step", passed=passed, detail=detail),),
        steps=(StepTime(traffic_percent=1, median_seconds=600.0, p90_seconds=1140.0),),
    )


def decided(records, ab_test):
    reports = [gate_model(*records(name)) for name in ("bandwidth_predictor", "consensus_latency")]
    return gate_session("s", reports, reports[0].data, ab_test=ab_test)


@pytest.mark.parametrize(
    ("passed", "said"),
    [(True, "nine of ten good candidates pass 1 % in 19 min"), (False, "is not decided within")],
)
def test_readiness_is_reported_and_rejects_nothing(records, passed, said):
    answer = decided(records, readiness(passed))
    ready = answer.production_readiness
    assert ready.ab_test_ready is passed
    assert said in ready.ab_test_detail
    assert ready.deployment_recommendation == "APPROVED"
    for text in (session_markdown(answer), session_html(answer)):
        assert "A/B test ready" in text
        assert said in text


def test_readiness_that_was_not_checked_is_not_reported(records):
    answer = decided(records, None)
    assert answer.production_readiness.ab_test_ready is None
    assert "A/B test" not in session_markdown(answer)
