"""Outdated runs go; what is under way, in use, came before it, or is unknown stays."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dwcp_ml import files
from dwcp_ml.bundle_store.retention import Fate, Policy, remove_outdated
from dwcp_ml.bundle_store.usage import ALL_MODELS, Stored, Used
from dwcp_ml.cli import main
from dwcp_ml.contract.errors import DwcpError, ErrorCode, UsageError
from dwcp_ml.contract.models import MODELS
from dwcp_ml.files import link, write_text
from dwcp_ml.kube.manifests import inference_service
from dwcp_ml.local_rollout.store import LocalRun, RolloutRequest, Store
from dwcp_ml.rollout.spec import any_rollout
from dwcp_ml.rollout.status import Phase, RolloutStatus
from dwcp_ml.training_run.options import run_options
from dwcp_ml.training_run.run_retention import (
    StoredRun,
    add_use,
    list_runs,
    plan,
    remove,
    used_by_runs,
)
from dwcp_ml.training_run.session import Session
from tests.errors import coded
from tests.training_run.test_previous_run import BANDWIDTH, LATENCY, past_run

NOW = datetime(2026, 6, 1, tzinfo=UTC)
FOREVER = Policy(1, timedelta(0))


def name(number):
    return f"2026010{number}-000000"


def stored(number, *models, **changes):
    """Return a run with approved bundles of some models."""
    directory = Path("/runs") / name(number)
    bundles = tuple(
        Stored(model, directory.name, str(directory / "models" / model), f"{number:064x}")
        for model in models
    )
    fields = {"approved": frozenset(models), "written": NOW - timedelta(days=30), **changes}
    return StoredRun(directory.name, directory, bundles, **fields)


def fates(runs, used=None, keep=1):
    """Return the number of each run -> fate, the newest first."""
    decisions = plan(runs, used or Used(), Policy(keep), NOW)
    assert all(each.why.endswith(".") for each in decisions)
    return {int(each.item.name[7]): each.fate.value for each in decisions}


def uses(*bundles):
    return Used(bundles=dict.fromkeys(bundles, "Something"))


class TestPlan:
    def test_the_newest_stay(self):
        runs = [stored(number, BANDWIDTH) for number in (2, 1, 3)]
        assert fates(runs, keep=2) == {3: "Newest", 2: "Newest", 1: "Outdated"}

    def test_a_bundle_in_use_keeps_its_run_and_the_one_before(self):
        runs = [stored(number, BANDWIDTH) for number in (1, 2, 3, 4, 5)]
        expected = {
            5: "Newest", 4: "Outdated", 3: "InUse", 2: "PredecessorOfOneInUse", 1: "Outdated",
        }  # fmt: skip
        assert fates(runs, uses(f"{BANDWIDTH}/{name(3)}")) == expected
        assert fates(runs, Used(digests={f"{3:064x}": "Something"})) == expected

    def test_what_came_before_is_the_approved_bundle_of_the_same_model(self):
        runs = [
            stored(1, BANDWIDTH),
            stored(2, BANDWIDTH, approved=frozenset()),
            stored(3, LATENCY),
            stored(4, BANDWIDTH, LATENCY),
            stored(5),
        ]
        found = fates(runs, uses(f"{BANDWIDTH}/{name(4)}"))
        assert found == {
            5: "Newest", 4: "InUse", 3: "Outdated", 2: "Outdated", 1: "PredecessorOfOneInUse",
        }  # fmt: skip

    def test_a_run_that_something_uses_stays_without_any_bundle(self):
        used = Used(addresses={f"/runs/{name(1)}": "Something"})
        assert fates([stored(1), stored(2), stored(3)], used)[1] == "InUse"

    @pytest.mark.parametrize(
        ("changes", "fate"),
        [
            ({"is_under_way": True}, "UnderWay"),
            ({"written": NOW - timedelta(hours=23)}, "Recent"),
            ({"written": None}, "Unknown"),
            ({"fault": "It has no run.json."}, "Unknown"),
            ({}, "Outdated"),
        ],
    )
    def test_an_old_run_stays_if_there_is_a_reason(self, changes, fate):
        assert fates([stored(1, **changes), stored(2), stored(3)])[1] == fate

    def test_where_the_use_is_unknown_nothing_goes(self):
        used = Used(unknown={ALL_MODELS: "It can't be known."})
        assert fates([stored(1), stored(2)], used)[1] == "Unknown"

    def test_what_is_no_run_does_not_count(self):
        runs = [stored(9, fault="It has no run.json."), stored(1), stored(2)]
        assert fates(runs) == {2: "Newest", 1: "Outdated", 9: "Unknown"}


@pytest.fixture
def runs(tmp_path):
    """A directory with nothing in it yet."""
    directory = tmp_path / "runs"
    directory.mkdir()
    return directory


def write_run(runs, number, **verdicts):
    """Write an ended run; without a verdict it is one that was interrupted."""
    session = Session(runs / name(number))
    if verdicts:
        past_run(runs, session.name, verdicts)
    write_text(session.directory / "run.json", run_options().model_dump_json())
    return session


def approve(runs, number):
    return write_run(runs, number, **{BANDWIDTH: "APPROVED"})


def write_canary(session, stable):
    uri = f"pvc://claim/{BANDWIDTH}"
    manifest = inference_service(
        MODELS[BANDWIDTH], session.name, f"{uri}/{session.name}", f"{uri}/{stable}", "standard"
    )
    path = session.directory / "manifests" / BANDWIDTH / "inferenceservice.yaml"
    write_text(path, json.dumps(manifest))


def write_rollout(directory, stable, candidate, phase=None, telemetry="/gone/t.csv"):
    """Write a rollout; one without a phase has not been decided on yet."""
    run = LocalRun(
        stable_bundle=str(stable.models / BANDWIDTH / stable.name),
        candidate_bundle=str(candidate.models / BANDWIDTH / candidate.name),
        telemetry=str(telemetry),
        requests_per_second=1.0,
    )
    Store(directory).create(RolloutRequest(rollout=any_rollout(), run=run))
    if phase is not None:
        write_text(directory / "status.json", RolloutStatus(phase=phase).to_json())
    return directory


def prune(runs, *words):
    """Run the command, and return what it says of each run: its number -> fate."""
    import contextlib
    import io

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command = ["runs", "prune", str(runs), "--keep", "1", "--min-age", "0", "--json", *words]
        assert main(command) == 0
    shown = json.loads(out.getvalue())["runs"]
    return {int(Path(each["directory"]).name[7]): each["fate"] for each in shown}


def left(runs):
    return sorted(path.name for path in runs.iterdir())


class TestUse:
    def test_the_next_canary_and_the_stable_of_the_last_one_are_in_use(self, runs):
        for number in (1, 2, 3, 4):
            approve(runs, number)
        write_canary(Session(runs / name(4)), name(2))
        write_run(runs, 5, **{BANDWIDTH: "REJECTED"})
        write_run(runs, 6)
        assert prune(runs) == {
            6: "Newest", 5: "Outdated", 4: "InUse", 3: "PredecessorOfOneInUse", 2: "InUse",
            1: "PredecessorOfOneInUse",
        }  # fmt: skip

    def test_each_model_has_its_own_newest_bundle(self, runs):
        write_run(runs, 1, **{LATENCY: "APPROVED"})
        for number in (2, 3, 4):
            approve(runs, number)
        assert prune(runs) == {4: "Newest", 3: "PredecessorOfOneInUse", 2: "Outdated", 1: "InUse"}

    def test_what_latest_links_to_is_in_use(self, runs):
        for number in (1, 2, 3):
            write_run(runs, number)
        Session(runs / name(1)).publish()
        assert prune(runs) == {3: "Newest", 2: "Outdated", 1: "InUse"}

    def test_a_rollout_that_has_not_ended_needs_all_its_files(self, runs):
        sessions = {number: write_run(runs, number) for number in range(1, 8)}
        telemetry = sessions[4].dataset / "telemetry.csv"
        write_rollout(
            sessions[1].rollouts / "r", sessions[2], sessions[3], Phase.PROGRESSING, telemetry
        )
        assert prune(runs) == {
            7: "Newest", 6: "Outdated", 5: "Outdated", 4: "InUse", 3: "InUse", 2: "InUse",
            1: "InUse",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("phase", "live"), [(Phase.PROMOTED, 2), (Phase.ROLLED_BACK, 1)], ids=str
    )
    def test_a_rollout_that_has_ended_leaves_one_bundle_live(self, runs, tmp_path, phase, live):
        sessions = {number: write_run(runs, number) for number in (1, 2, 3, 4)}
        state = write_rollout(tmp_path / "elsewhere", sessions[1], sessions[2], phase)
        expected = {4: "Newest", 3: "Outdated", 2: "Outdated", 1: "Outdated", live: "InUse"}
        assert prune(runs, "--state", str(state)) == expected
        state.rename(sessions[3].directory / "r")
        assert prune(runs)[live] == "Outdated", "it is not where rollouts of a run are"
        sessions[3].rollouts.mkdir()
        (sessions[3].directory / "r").rename(sessions[3].rollouts / "r")
        assert prune(runs) == expected

    def test_a_rollout_that_has_ended_does_not_keep_its_own_run(self, runs):
        sessions = {number: write_run(runs, number) for number in (1, 2, 3)}
        write_rollout(sessions[2].rollouts / "r", sessions[1], sessions[2], Phase.PROMOTED)
        assert prune(runs) == {3: "Newest", 2: "Outdated", 1: "Outdated"}

    def test_a_damaged_rollout_stops_everything(self, runs):
        sessions = {number: write_run(runs, number) for number in (1, 2, 3)}
        write_text(sessions[3].rollouts / "r/spec.json", "{")
        assert prune(runs, "--delete") == {3: "Newest", 2: "Unknown", 1: "Unknown"}

    def test_a_directory_without_a_rollout_is_an_error(self, runs, tmp_path):
        words = ["runs", "prune", str(runs), "--keep", "1", "--state"]
        assert main([*words, str(tmp_path)]) == 2
        assert main([*words, str(tmp_path / "none")]) == 2


class TestRemoval:
    def test_nothing_goes_without_delete(self, runs):
        for number in (1, 2):
            write_run(runs, number)
        assert prune(runs) == {2: "Newest", 1: "Outdated"}
        assert left(runs) == [name(1), name(2)]
        assert prune(runs, "--delete") == {2: "Newest", 1: "Outdated"}
        assert left(runs) == [name(2)]

    def test_a_run_goes_with_its_rollouts(self, runs, monkeypatch):
        """Only reading them must not make it a run that was written lately."""
        sessions = {number: write_run(runs, number) for number in (1, 2)}
        write_rollout(sessions[1].rollouts / "r", sessions[1], sessions[1], Phase.PROMOTED)
        before = [(each.name, each.written) for each in list_runs(runs)]

        def probe(**_):
            pytest.fail("a directory that is only read is probed by writing to it")

        monkeypatch.setattr(files.tempfile, "TemporaryFile", probe)
        assert prune(runs) == {2: "Newest", 1: "Outdated"}
        assert [(each.name, each.written) for each in list_runs(runs)] == before
        assert prune(runs, "--delete") == {2: "Newest", 1: "Outdated"}
        assert left(runs) == [name(2)]

    def test_the_table_says_how_much(self, runs, capsys):
        write_run(runs, 2)
        write_text(write_run(runs, 1).logs / "a.log", "x" * 2_000_000)
        assert main(["runs", "prune", str(runs), "--keep", "1", "--min-age", "0"]) == 0
        assert "1 of 2 runs, 2.0 MB, would be removed by --delete." in capsys.readouterr().out

    def test_links_are_not_followed(self, runs, tmp_path):
        outside = tmp_path / "outside"
        write_text(outside / "run.json", run_options().model_dump_json())
        write_text(outside / "kept", "")
        link(runs / name(2), outside)
        link(write_run(runs, 1).directory / "work", outside)
        write_run(runs, 3)
        assert prune(runs, "--delete") == {3: "Newest", 1: "Outdated"}
        assert left(runs) == [name(2), name(3)]
        assert left(outside) == ["kept", "run.json"]

    def test_a_run_that_a_process_uses_stays(self, runs):
        sessions = {number: write_run(runs, number) for number in (1, 2, 3)}
        with sessions[1].in_use(), sessions[1].in_use():
            assert prune(runs, "--delete") == {3: "Newest", 2: "Outdated", 1: "UnderWay"}
        assert prune(runs) == {3: "Newest", 1: "Outdated"}

    def test_what_comes_into_use_after_the_plan_stays(self, runs):
        sessions = {number: write_run(runs, number) for number in (1, 2, 3, 4)}
        decisions = plan(list_runs(runs), used_by_runs(runs), FOREVER, datetime.now(UTC))
        assert [each.fate for each in decisions] == [Fate.NEWEST, *[Fate.OUTDATED] * 3]

        stored = list_runs(runs)

        def again():
            used = Used()
            add_use(used, sessions[1].directory, "Something")
            return plan(stored, used, FOREVER, datetime.now(UTC))

        write_text(sessions[2].logs / "a.log", "resumed, and interrupted again")
        with sessions[3].in_use():
            final = remove_outdated(decisions, again, remove)
        assert [each.fate.value for each in final] == ["Newest", "UnderWay", "UnderWay", "InUse"]
        assert left(runs) == [name(number) for number in (1, 2, 3, 4)]

    def test_an_interrupted_removal_leaves_no_run(self, runs, monkeypatch):
        def interrupted(*_, **_options):
            raise KeyboardInterrupt

        for number in (1, 2):
            write_text(write_run(runs, number).logs / "a.log", "")
        with monkeypatch.context() as patch:
            patch.setattr(files.shutil, "rmtree", interrupted)
            words = ["runs", "prune", str(runs), "--keep", "1", "--min-age", "0", "--delete"]
            assert main(words) == 130
        assert [each for each in left(runs) if not each.startswith(".")] == [name(2)]
        assert len(left(runs)) == 2
        assert prune(runs, "--delete") == {2: "Newest"}
        assert left(runs) == [name(2)], "the next one deletes what the first one left"

    def test_a_run_that_has_been_removed_can_not_be_used(self, runs):
        session = write_run(runs, 1)
        files.remove_directory(session.directory)
        with pytest.raises(UsageError), session.in_use():
            pytest.fail("it is gone")

    def test_a_run_that_can_not_be_locked_is_unknown(self, runs, monkeypatch):
        for number in (1, 2):
            write_run(runs, number)

        def unsupported(*_):
            raise OSError(95, "Operation not supported")

        monkeypatch.setattr("fcntl.flock", unsupported)
        with Session(runs / name(1)).in_use():
            pass
        assert prune(runs, "--delete") == {2: "Unknown", 1: "Unknown"}
        assert left(runs) == [name(1), name(2)]

    def test_a_run_that_can_not_be_removed_is_an_error(self, runs, monkeypatch):
        for number in (1, 2):
            write_run(runs, number)

        def forbidden(*_, **__):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(files.tempfile, "mkdtemp", forbidden)
        first = min(list_runs(runs), key=lambda run: run.name)
        with pytest.raises(DwcpError, check=coded(ErrorCode.CANT_WRITE)):
            remove(first)
        assert left(runs) == [name(1), name(2)]

    def test_a_directory_that_is_not_there_is_an_error(self, tmp_path):
        with pytest.raises(UsageError, check=coded(ErrorCode.MISSING)):
            list_runs(tmp_path / "none")
        assert main(["runs", "prune", str(tmp_path / "none"), "--keep", "1"]) == 2


@pytest.mark.parametrize(
    "words",
    [
        ["gate", "--run"],
        ["evaluate", "--run"],
        ["export", "--output-dir", "/nowhere", "--run"],
        ["train", "--resume"],
        ["pipeline", "run", "--resume"],
        ["serve", "--model-dir"],
    ],
    ids=lambda words: words[0],
)
def test_a_command_that_works_on_a_run_keeps_it(runs, monkeypatch, words):
    session = write_run(runs, 1)
    seen = []

    def stop(*_, **__):
        with session.not_in_use() as free:
            seen.append(free)
        raise UsageError("That is enough.")

    for target in (
        "training_run.gate_step.run_gate",
        "training_run.evaluation_step.evaluate_run",
        "training_run.export_step.export_bundle",
        "training_run.orchestrator.run_session",
        "training_run.local_pipeline.run_pipeline",
        "serving.server.serve",
    ):
        monkeypatch.setattr(f"dwcp_ml.{target}", stop)
    session.models.mkdir(exist_ok=True)
    path = session.models if words[0] == "serve" else session.directory
    assert main([*words, str(path)]) == 2
    assert seen == [False]
    with session.not_in_use() as free:
        assert free, "the command has ended"
