"""Every short history over a small alphabet, and the rules of every write in all of them.

Two histories that lead to the same situation are followed once. A situation is everything that can
change what is decided next: what is asked for, what was stored, what is live, and what the servers
counted since. Of the evidence only what it says is compared, not its counts: a block is either so
good that one passes a step, or so bad that one ends the rollout, whatever came before.
"""

import pytest

from dwcp_ml.rollout.evidence import error_rate, watch
from dwcp_ml.rollout.status import Phase
from tests.matrix import few
from tests.rollout.situations import ANY_LENGTH, LETTERS, Situation, edited, reconciled, ticked

MOST_LOOKS = 25
"""Undisturbed, a rollout over three steps ends after at most this many reconciliations."""


@pytest.fixture(autouse=True)
def one_bad_block_decides(monkeypatch):
    """Lift the cap of a factor: how many bad blocks it takes is tested with the evidence."""
    for module in (error_rate, watch):
        monkeypatch.setattr(module, "LOG_MAX_FACTOR", 300.0)


def explore(letters, depth):
    """Return every situation that this many letters reach, and the reconciliations to reach it."""
    start = Situation()
    seen, frontier, reconciliations = {start.key(): start}, [start], 0
    for _ in range(depth):
        following = []
        for here in frontier:
            for letter, move in letters.items():
                reconciliations += 1
                try:
                    there = move(here)
                except AssertionError as error:
                    raise AssertionError(f"{letter} after {here}") from error
                if seen.setdefault(there.key(), there) is there:
                    following.append(there)
        if not following:
            break
        frontier = following
    return seen, reconciliations


def fates(situations):
    """Let each go on undisturbed; return situation -> how it ended."""
    known = {}
    for first in situations:
        here, path = edited(first, paused=False, abort=False), []
        while here.key() not in known and not here.kept.ended:
            path.append(here.key())
            assert len(path) <= MOST_LOOKS, f"it never ends: {first}"
            here = reconciled(ticked(here))
        end = known.get(here.key())
        if end is None:
            end = (here.kept.phase, here.live, here.promoted, here.asked.spec().candidate.digest
                   in here.blocked)  # fmt: skip
        known.update(dict.fromkeys(path, end))
    return known


def hold_the_rules(letters, depth=ANY_LENGTH):
    situations, reconciliations = explore(letters, depth)
    print(f"{len(situations)} situations, {reconciliations} reconciliations")
    ends = fates([here for here in situations.values() if not here.kept.ended])
    assert set(ends.values()) == {
        (Phase.PROMOTED, 100, True, False),
        (Phase.ROLLED_BACK, 0, False, True),
    }
    return situations


def of(*names):
    return {name: LETTERS[name] for name in names}


CORE = ("good", "bad", "metrics down", "router down", "write lost", "dies before store", "sets 30",
        "sets 100")  # fmt: skip
EDITS = ("edits the steps", "another candidate", "aborts or not", "retries")


@pytest.mark.slow
def test_the_rules_hold_in_every_history_without_edits_whatever_its_length():
    """Until nothing new is reached; from everywhere an undisturbed rollout ends."""
    situations = hold_the_rules(of(*(name for name in LETTERS if name not in EDITS)))
    assert len(situations) > 2000, "the alphabet became poorer"
    assert {here.kept.phase for here in situations.values()} == set(Phase) - {
        Phase.FIRST_DEPLOYMENT
    }


@pytest.mark.parametrize("more", few(["pauses or goes on", "crashes", "not ready"], "crashes"))
def test_the_rules_hold_in_every_history_of_the_core_and_one_thing_more(more):
    assert len(hold_the_rules(of(*CORE, more))) > 200


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_the_rules_hold_in_every_history_of_six_with_edits(edit):
    assert len(hold_the_rules(of(*CORE, edit), 6)) > 200


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_the_rules_hold_in_every_history_with_edits_whatever_its_length(edit):
    assert len(hold_the_rules(of(*CORE, "not ready", "crashes", "pauses or goes on", edit))) > 500


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_rules_hold_in_every_history_of_six():
    assert len(hold_the_rules(LETTERS, 6)) > 8000


@pytest.mark.slow
def test_a_controller_that_reads_the_version_before_keeps_the_rules_it_can_know():
    """Whatever is stored, a rise needs a verdict in it, and nothing skips a step.

    What only the newer version knew, a rollback say, it can't keep: so a store must refuse a write
    on an old version, and does so elsewhere.
    """

    def remembering(move):
        def follow(here):
            there = move(here)
            return there._replace(before=here.kept)

        return follow

    def reads_the_version_before(here):
        if here.before is None:
            return here
        blocked = frozenset(here.before.blocked)
        return reconciled(ticked(here._replace(kept=here.before, before=None, blocked=blocked)))

    letters = {name: remembering(LETTERS[name]) for name in CORE}
    letters["reads the version before"] = reads_the_version_before
    situations, reconciliations = explore(letters, 6)
    print(f"{len(situations)} situations, {reconciliations} reconciliations")
    assert len(situations) > 300


@pytest.mark.slow
def test_situations_that_are_taken_for_one_go_on_alike():
    """What ``key`` leaves out changes nothing: the successors of two that it merges are merged."""
    letters = of(*CORE, "crashes")
    situations, _ = explore(letters, ANY_LENGTH)
    compared = 0
    for here in situations.values():
        for move in letters.values():
            there = move(here)
            twin = situations[there.key()]
            if twin is there or there.kept == twin.kept:
                continue
            compared += 1
            for letter, further in letters.items():
                one, other = further(there), further(twin)
                if one.kept.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK):
                    # Evidence is of no use any more.
                    assert (one.kept.phase, one.live) == (other.kept.phase, other.live), letter
                else:
                    assert one.key() == other.key(), letter
    assert compared > 500
