"""Death at every point of every path, once and twice in a row: the end is the undisturbed one."""

import itertools

import pytest

from dwcp_ml.rollout.status import Phase
from tests.matrix import few
from tests.rollout.histories import OTHER, Controller, Servers, edited, quick_spec

DEATHS = ("before store", "before write", "write made twice")
"""The last is a death after the write was made, and a next life that makes it again."""


def go_bad(controller):
    controller.servers.errors["candidate"] = 0.8


def crash(controller):
    controller.servers.restarts += 3


def when(live, act):
    """Return a hand that acts once, when the candidate has this share and has been seen with it."""

    def hand(controller, done):
        if not done and controller.live == live and controller.kept.step_requests > 0:
            act(controller)
            done.append(True)

    return hand


def pause_a_while(controller, done):
    """Pause at 5 % for six reconciliations."""
    if len(done) == 6 and controller.spec.paused:
        controller.edit(paused=False)
    elif controller.spec.paused:
        done.append(True)
    elif not done and controller.live == 5:
        controller.edit(paused=True)
        done.append(True)


def crash_at_once(controller, done):
    controller.servers.ready = False
    if not done and controller.kept.restarts_at_start is not None:
        crash(controller)
        done.append(True)


def abort(controller):
    controller.edit(abort=True)


def another(controller):
    controller.edit(candidate=OTHER.model_dump())


def the_barred_again(controller, done):
    """After the end: another candidate, and once that has a share, the one that was rolled back."""
    if not done and controller.live == 5:
        go_bad(controller)
        done.append("bad")
    elif done == ["bad"] and controller.kept.phase is Phase.ROLLED_BACK:
        controller.servers.errors["candidate"] = 0.0
        first = controller.spec.candidate.model_dump()
        another(controller)
        done.append(first)
    elif len(done) == 2 and controller.live == 5:
        controller.edit(candidate=done[1])
        done.append("again")


PATHS = {
    "promotion": lambda controller, done: None,
    "pause": pause_a_while,
    "crashes before it has traffic": crash_at_once,
    **{f"goes bad at {live} %": when(live, go_bad) for live in (1, 5, 25, 50, 100)},
    **{f"crashes at {live} %": when(live, crash) for live in (1, 25, 100)},
    **{f"abort at {live} %": when(live, abort) for live in (1, 5, 25, 50, 100)},
    **{f"another candidate at {live} %": when(live, another) for live in (1, 25, 100)},
    "first deployment": lambda controller, done: None,
    "the blocked candidate again": the_barred_again,
}
MOST_LOOKS = 60


def walk(path, deaths):
    """Return the end of a path and its reconciliations, with a death at some of them."""
    spec = quick_spec()
    if path == "first deployment":
        spec = edited(spec, stable=None)
    controller, done = Controller(spec, Servers(spec)), []
    ended = 0
    for number in range(MOST_LOOKS):
        PATHS[path](controller, done)
        write = controller.reconcile(dies=deaths.get(number, "never"))
        ended = ended + 1 if controller.kept.ended else 0
        assert write is None or not ended, "I5"
        if ended > 1 and len(done) != 2:
            break
    kept = controller.kept
    risen = [new for old, new in itertools.pairwise(controller.weights) if new > old]
    end = {
        "phase": kept.phase, "live": controller.live, "target": kept.target_percent,
        "blocked": kept.blocked, "revision": kept.revision,
        "promoted": controller.servers.promoted, "risen": risen,
        "why": (kept.cause.reason, kept.cause.test),
    }  # fmt: skip
    return end, number + 1


USUAL = ("promotion", "goes bad at 25 %", "abort at 50 %", "another candidate at 25 %",
         "first deployment", "crashes before it has traffic")  # fmt: skip


def die_everywhere(path, *kinds):
    """Walk a path once for each reconciliation and kind of death; expect the same end."""
    expected, reconciliations = walk(path, {})
    assert expected["phase"] in (Phase.PROMOTED, Phase.ROLLED_BACK)
    for number, deaths in itertools.product(range(reconciliations), kinds):
        end, _ = walk(path, {number + later: death for later, death in deaths.items()})
        assert end == expected, (number, deaths)


@pytest.mark.parametrize("path", few(USUAL, "goes bad at 25 %", "first deployment"))
def test_death_at_any_point_changes_no_end(path):
    die_everywhere(path, {0: "before store"}, {0: "before write"})


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_death_at_any_point_and_again_changes_no_end(path):
    once = ({0: death} for death in DEATHS)
    twice = ({0: first, 1: second} for first, second in itertools.product(DEATHS, DEATHS))
    die_everywhere(path, *once, *twice)
