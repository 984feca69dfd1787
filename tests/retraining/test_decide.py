"""When a run of a retraining is started, and on which window of telemetry."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dwcp_ml.retraining.decide import Skip, decide, sentence, superfluous
from dwcp_ml.retraining.settings import Window
from tests.retraining.retrainings import DAY, HOUR, NOW, live, past, retraining


def decided(*runs, rollouts=(), now=NOW, **changes):
    return decide(retraining(**changes), "schedule", now, runs, rollouts)


def test_the_first_run_is_started_on_the_newest_complete_window():
    found = decided(delayMinutes=45)
    assert (found.skip, found.run) == (None, "nightly-1")
    # 12:30 less 45 minutes is 11:45: the window ends at the full hour before.
    assert found.window_end == datetime(2026, 3, 20, 11, tzinfo=UTC)
    assert found.window_end - found.window_start == 10 * DAY
    assert found.new_data is None


@pytest.mark.parametrize("phase", ["Promoted", "RolledBack"])
def test_a_rollout_that_has_ended_lets_a_run_start(phase):
    assert decided(rollouts=[live(phase=phase)]).skip is None


@pytest.mark.parametrize(
    "phase",
    ["Pending", "FirstDeployment", "Progressing", "Paused", "Watching", "Promoting", "RollingBack",
     None],
)  # fmt: skip
def test_a_rollout_under_way_is_waited_for(phase):
    found = decided(rollouts=[live(phase=phase)])
    assert (found.skip, found.run) == (Skip.ROLLOUT_UNDER_WAY, "bandwidth-predictor")


def test_one_run_at_a_time():
    found = decided(past(1), past(2, ended=False), past(3))
    assert (found.skip, found.run) == (Skip.RUN_UNDER_WAY, "nightly-2")


@pytest.mark.parametrize("ago", [timedelta(0), 23 * HOUR])
def test_a_cool_down_counts_from_the_start_of_the_last_run_whatever_came_of_it(ago):
    found = decided(past(7, ago=ago, has_verdict=False))
    assert (found.skip, found.run) == (Skip.COOLING_DOWN, "nightly-7")
    assert found.not_before == NOW - ago + DAY


@pytest.mark.parametrize(
    ("cooldown", "early", "skip"),
    [
        (24, timedelta(seconds=5), None),
        (24, timedelta(minutes=16), Skip.COOLING_DOWN),
        (1, timedelta(minutes=2), None),
        (1, timedelta(minutes=4), Skip.COOLING_DOWN),
        (0, timedelta(0), None),
    ],
)
def test_a_daily_job_that_is_seconds_earlier_than_the_day_before_is_not_skipped(
    cooldown, early, skip
):
    run = past(7, ago=cooldown * HOUR - early, has_verdict=False)
    assert decided(run, cooldownHours=cooldown).skip is skip


def test_the_next_run_has_the_next_number():
    found = decided(past(9, ago=30 * DAY), past(10, ago=20 * DAY), past(2, ago=40 * DAY))
    assert (found.skip, found.run, found.number) == (None, "nightly-11", 11)


@pytest.mark.parametrize(
    ("ago", "skip"), [(24 * HOUR, None), (23 * HOUR, Skip.TOO_LITTLE_NEW_DATA), (11 * DAY, None)]
)
def test_a_window_needs_new_data_since_the_last_verdict(ago, skip):
    found = decided(past(3, ago=ago), cooldownHours=0)
    assert found.skip is skip
    assert found.new_data == pytest.approx(min(ago / (10 * DAY), 1.0))
    assert found.needed_new_data == 0.1


def test_a_run_without_a_verdict_has_used_no_data():
    assert decided(past(3, ago=2 * HOUR, has_verdict=False), cooldownHours=1).skip is None
    # The one before it has: its window counts.
    found = decided(
        past(2, ago=4 * HOUR), past(3, ago=2 * HOUR, has_verdict=False), cooldownHours=1
    )
    assert (found.skip, found.run) == (Skip.TOO_LITTLE_NEW_DATA, "nightly-2")


@pytest.mark.parametrize(
    ("ago", "rollout", "skip"),
    [
        (4 * DAY, live("v1", "RolledBack"), Skip.TOO_LITTLE_NEW_DATA),
        (5 * DAY, live("v1", "RolledBack"), None),
        (4 * DAY, live("v1", "Promoted"), None),
        (4 * DAY, live("v0", "RolledBack"), None),  # another run's
    ],
)
def test_data_that_led_to_a_roll_back_are_not_tried_again(ago, rollout, skip):
    assert decided(past(3, ago=ago), rollouts=[rollout]).skip is skip


@pytest.mark.parametrize(
    ("version", "skip"), [("v1", Skip.TOO_LITTLE_NEW_DATA), ("v0", None), ("", None)]
)
def test_a_run_that_published_a_candidate_has_used_its_data_without_a_verdict(version, skip):
    """It was cancelled after that, or Kubeflow does not know it any more."""
    run = past(3, ago=4 * DAY, has_verdict=False, version="v1")
    assert decided(run, rollouts=[live(version, "RolledBack")]).skip is skip
    assert decided(run.replace(version=""), rollouts=[live("", "Pending")]).skip is None


@pytest.mark.parametrize(
    ("rollouts", "version", "skip"),
    [
        (("bandwidth-predictor",), "v0", Skip.TOO_LITTLE_NEW_DATA),
        (("bandwidth-predictor",), "v1", None),
        (("consensus-latency",), "v0", None),  # of the model's it published none
        ((), "v0", None),  # the gate rejected all
    ],
)
def test_a_user_who_restores_the_version_before_has_rolled_back(rollouts, version, skip):
    run = past(3, ago=4 * DAY, rollouts=rollouts)
    assert decided(run, rollouts=[live(version, "Promoted")]).skip is skip


def test_a_suspended_retraining_starts_nothing():
    assert decided(suspend=True).skip is Skip.SUSPENDED


def test_superfluous_runs_are_the_oldest_that_have_ended():
    runs = [past(number) for number in (4, 2, 3)] + [past(1, ended=False)]
    names = [run.name for run in superfluous(retraining(historyLimit=2), runs)]
    assert names == ["nightly-2"]
    assert superfluous(retraining(), runs) == []


@pytest.mark.parametrize("skip", [None, *Skip])
def test_every_decision_has_a_sentence(skip):
    found = decided(past(3, ago=4 * DAY), cooldownHours=200).replace(skip=skip, new_data=0.01)
    text = sentence(found.replace(not_before=NOW))
    assert text.startswith("nightly: ")
    assert "None" not in text


hours = st.integers(0, 2000)


@given(starts=st.lists(hours, min_size=1, max_size=40), verdicts=st.data())
def test_runs_never_follow_closer_than_the_cool_down_and_windows_never_go_back(starts, verdicts):
    runs = []
    moments = sorted({NOW + hour * HOUR for hour in starts})
    for moment in moments:
        found = decide(retraining(), "alert/X", moment, runs, [])
        if found.skip is None:
            has_verdict = verdicts.draw(st.booleans())
            window = (found.window_start, found.window_end)
            run = past(found.number, has_verdict=has_verdict)
            runs.append(run.replace(created=moment, window=window))
    times = [run.created for run in runs]
    assert all(later - earlier >= DAY for earlier, later in pairwise(times))
    assert [run.number for run in runs] == list(range(1, len(runs) + 1))
    judged = [Window(*run.window) for run in runs if run.has_verdict]
    for earlier, later in pairwise(judged):
        assert later.end > earlier.end
        assert later.new_share(earlier) >= 0.1 - 1e-9
