"""A candidate whose contract is not the stable's gets no traffic, and no more than it has."""

import pytest

from dwcp_ml.rollout.reason import Reason, Stall
from dwcp_ml.rollout.spec import Skip
from dwcp_ml.rollout.status import Phase
from tests.matrix import diagonal, few
from tests.rollout.histories import SHARES, Run, check_rules, spec_of

ONE, OTHER = "1" * 64, "2" * 64
RECONCILIATIONS = 100


class ContractRun(Run):
    """A rollout whose servers report contracts; the rules are checked at every write."""

    def __init__(self, stable, candidate, **how):
        super().__init__(**how)
        self.stable, self.candidate = stable, candidate

    is_one_bundle = False

    def reconcile(self, observation=None, seconds=10.0):
        seen = self.world.observe()
        if self.is_one_bundle:
            digest = seen.candidate.digest
            seen = seen.replace(stable=seen.stable.replace(digest=digest))
        seen = seen.replace(
            stable=seen.stable.replace(contracts=self.stable),
            candidate=seen.candidate.replace(contracts=self.candidate),
        )
        before = self.status
        write = super().reconcile(seen, seconds)
        check_rules(self.spec, before, self.status, write, seen)
        return write


@pytest.mark.parametrize(
    ("stable", "candidate"),
    [
        ((ONE,), (OTHER,)),
        ((ONE,), (ONE, OTHER)),
        ((ONE, OTHER), (ONE,)),
        ((ONE, OTHER), (ONE, OTHER)),
        (("", ONE), ("", OTHER)),
    ],
)
def test_a_candidate_with_another_contract_gets_no_traffic(stable, candidate):
    run = ContractRun(stable, candidate)
    for _ in range(RECONCILIATIONS):
        assert run.reconcile() is None
    assert run.weights == [0]
    assert run.status.phase is Phase.PENDING
    assert run.status.cause.reason is Reason.CONTRACT_DIFFERS
    assert run.status.cause.stall is Stall.AT_ONCE
    assert "another model name" in run.status.cause.sentence
    assert "InferenceService of its own" in run.status.cause.sentence


@pytest.mark.parametrize("contracts", few([(ONE,), (), ("",), ("", ONE)], (ONE,), ()))
def test_equal_contracts_and_two_unknown_ones_change_nothing(contracts):
    run = ContractRun(contracts, contracts)
    run.until(Phase.PROMOTED)
    assert run.weights == [0, *SHARES]


@pytest.mark.parametrize(
    ("unknown", "arm"), diagonal([(), ("",), ("", ONE)], ["stable", "candidate"])
)
def test_while_one_arm_does_not_report_its_contract_a_rise_waits(unknown, arm):
    run = ContractRun((ONE,), (ONE,))
    setattr(run, arm, unknown)
    for _ in range(RECONCILIATIONS):
        run.reconcile()
    assert run.weights == [0]
    assert (run.status.cause.reason, run.status.cause.arm) == (Reason.CONTRACT_UNKNOWN, arm)
    setattr(run, arm, (ONE,))
    run.until(Phase.PROMOTED)


@pytest.mark.parametrize("share", few([5, 100], 5))
def test_a_contract_that_changes_under_traffic_holds_and_rolls_nothing_back(share):
    run = ContractRun((ONE,), (ONE,))
    while run.world.live_percent != share:
        run.reconcile()
    run.candidate = (OTHER,)
    for _ in range(RECONCILIATIONS):
        run.reconcile()
    assert run.world.live_percent == share
    assert not run.world.promoted
    assert run.status.cause.reason is Reason.CONTRACT_DIFFERS
    object.__setattr__(run.world.traffic, "candidate_errors", 0.2)
    assert run.until(Phase.ROLLED_BACK).cause.reason is Reason.TEST_FAILED


def test_a_skipped_step_does_not_overrule_the_contract():
    run = ContractRun((ONE,), (ONE,), spec=spec_of(skip=Skip(traffic_percent=1, reason="urgent")))
    while run.world.live_percent != 1:
        run.reconcile()
    run.candidate = (OTHER,)
    for _ in range(RECONCILIATIONS):
        run.reconcile()
    assert run.world.live_percent == 1
    assert run.status.cause.reason is Reason.CONTRACT_DIFFERS


def test_a_first_deployment_has_no_callers_to_break():
    run = ContractRun((OTHER,), (ONE,), spec=spec_of(stable=None))
    run.until(Phase.PROMOTED)


@pytest.mark.parametrize(("stable", "candidate"), [((), (ONE,)), ((ONE,), (OTHER,))])
def test_one_bundle_has_one_contract_whatever_two_releases_of_the_server_say(stable, candidate):
    """The image of the server is rolled out: only one of the two reports it, or reports it so."""
    run = ContractRun(stable, candidate)
    run.is_one_bundle = True
    run.until(Phase.PROMOTED)
    assert run.weights == [0, *SHARES]
