"""Every fault of the operator in full numbers, and the table of them in docs/faults.md.

python -m benchmarks.faults                 all of them, and the table: an hour and a half
python -m benchmarks.faults --only cluster  those on the real API server (or memory)
python -m benchmarks.faults -k stale        some, as pytest names them

Of the table only the rows whose tests ran are written again.

Plain pytest tries a twentieth of those in memory, and `make test` a twentieth of all.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[1]
TABLE: Final = ROOT / "docs" / "faults.md"

_IN_MEMORY: Final = "API in memory"
_REAL: Final = "real API server"
_SUITES: Final = {
    _IN_MEMORY: ("slow or not slow", ("tests/operator", "tests/rollout/test_faults.py")),
    _REAL: ("cluster", ("tests/cluster/operator",)),
}


_NAMES: Final = {"memory": _IN_MEMORY, "cluster": _REAL}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    number
        Of the list of faults that a controller has to pass.
    what, bar
        What is done to it, and what must hold.
    test
        Beginning of the tests' names, with their file.
    """

    number: int
    what: str
    bar: str
    test: str


_HEAD: Final = """# The faults that the operator survives

`make faults` tries them in full numbers and writes this page; `make test` tries a twentieth of
them, with the same seeds.

*API in memory* is a played API server and a played KServe in virtual time
(`tests/operator/memory_api.py`, `fake_kserve.py`). *Real API server* is kube-apiserver and
etcd with KServe's own controller ([what is real and what is
played](../tests/cluster/README.md)). The rules of every write are I1 to I5 of [the
rollout](rollout.md): a share is 0 or a step and rises one step at a time, only on a stored
passing verdict, never again after a roll-back; shares are 100 together; nothing is written
after the end. They are held at every single change of an InferenceService.

The numbers in front are those of the list of faults that the operator was built against. What
is not here: metrics that are down and traffic that is little (6 and 7) are also in the tests of
the decision itself, bad and equal candidates (12 and 13) are in [the decision
rules](decision-rules.md), and a thousand rollouts at once (11) in [its
benchmark](../benchmarks/results/operator.md).

| # | fault | on | tried | what must hold | result | on the day |
| --- | --- | --- | --- | --- | --- | --- |
"""

_SAME_END: Final = "the same end as undisturbed, and the rules of every write hold"

ROWS: Final = {
    _IN_MEMORY: (
        Row(1, "the process dies, or an answer is lost, before or after each write", _SAME_END,
            "test_faults.test_a_fault_before_or_after"),
        Row(1, "the same twice in a row", _SAME_END, "test_faults.test_two_faults_in_a_row"),
        Row(2, "reads lag 1 to 12 versions, and travel back after a restart", _SAME_END,
            "test_faults.test_reads_of_the_past"),
        Row(3, "each watch event dropped, or told three times", _SAME_END,
            "test_watch.test_each_event_dropped"),
        Row(3, "no watch event at all; an object that none tells of", "found within one resync",
            "test_watch.test_a_watch_that_is_silent"),
        Row(5, "others edit weight, candidate, steps, pause between any two calls",
            "the rules of every write hold, and it ends",
            "test_faults.test_others_who_write"),
        Row(5, "a new candidate at each moment", "begins at the first step",
            "test_faults.test_a_new_candidate_begins"),
        Row(6, "metrics down, NaN, empty, stale, reset, half an hour at each step",
            "holds, says why, goes on; a crash-looping candidate is taken back",
            "test_faults.test_half_an_hour"),
        Row(8, "clocks that jump or differ by hours", "who leads stays the same",
            "test_lease.test_clocks"),
        Row(9, "a leader is paused in a write, past its Lease, and wakes up",
            "no write of it succeeds after the next leader's first to that object",
            "test_lease.test_a_leader_that_was_paused"),
        Row(14, "random transitions: faults, edits, restarts, bad candidates (looks)",
            "the rules of every write hold", "test_faults.test_random_transitions"),
        Row(14, "random ModelRollouts, over the whole schema and beyond it",
            "no crash, one condition, the same end once it is mended",
            "test_random_specs.test_random_rollouts"),
        Row(14, "random TrainingRuns", "no crash, one condition, the same end once it is mended",
            "test_random_specs.test_random_trainings"),
        Row(15, "forged weights, verdicts, phases in the status, at each moment", "ignored",
            "test_faults.test_what_is_shown_can_be_forged"),
    ),
    _REAL: (
        Row(1, "the process dies before or after each write of each path", _SAME_END,
            "test_crashes.test_a_crash"),
        Row(4, "one request in ten answers 429, 500, 503, never, or too late; API server killed "
            "once for 50 rollouts", "every rollout ends as it should",
            "test_many.test_rollouts_end"),
        Row(9, "a leader is paused in a write, past its Lease, and wakes up",
            "no write of it succeeds after the next leader's first to that object",
            "test_leaders.test_a_leader_that_was_paused"),
        Row(9, "SIGSTOP and SIGCONT of a leading process", "the other one ends the rollouts",
            "test_leaders.test_a_process_that_is_stopped"),
        Row(10, "deleted in mid-rollout, with crashes and others' finalizers", "no orphan",
            "test_finalizer.test_what_is_deleted"),
        Row(10, "deleted while no operator runs, or without its InferenceService; "
            "definition upgraded and back", "goes when somebody looks; goes on",
            "test_finalizer.test_"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One test as it went: its name with its file, how many things it tried, whether it passed."""

    name: str
    tried: int
    passed: bool


def main(given: list[str]) -> int:
    """Run them, print their rows, and write them into the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", choices=sorted(_NAMES), help="one of the two suites")
    chosen, words = parser.parse_known_args(given)
    code = 0
    for suite in [_NAMES[chosen.only]] if chosen.only else list(_SUITES):
        failed, found = run(suite, words)
        code = code or failed
        lines = list(table(suite, found))
        print("\n".join(lines), flush=True)
        rewrite(lines)
    return code


def run(suite: str, words: list[str]) -> tuple[int, list[Case]]:
    """Run the tests of a suite; return the exit code and how each went."""
    marker, places = _SUITES[suite]
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-m", marker, "--timeout", "7200",
            "--durations", "15", f"--junitxml={report}", *places, *words,
        ]  # fmt: skip
        done = subprocess.run(
            command, check=False, cwd=ROOT, env={**os.environ, "DWCP_FAULTS": "full"}
        )
        none_asked_for = done.returncode == 5
        return 0 if none_asked_for else done.returncode, list(cases(report))


def cases(report: Path) -> Iterator[Case]:
    """Yield the tests of a report; one that tells no number tried one thing."""
    for case in ElementTree.parse(report).iter("testcase"):
        told = {one.get("name"): one.get("value") for one in case.iter("property")}
        failed = any(case.find(what) is not None for what in ("failure", "error", "skipped"))
        place = (case.get("classname") or "").rpartition(".")[2]
        yield Case(f"{place}.{case.get('name')}", int(told.get("tried") or 1), not failed)


def table(suite: str, found: list[Case]) -> Iterator[str]:
    """Yield the lines of a suite; a row none of whose tests ran is left out."""
    claimed: set[str] = set()
    today = time.strftime("%Y-%m-%d")
    for row in ROWS[suite]:
        mine = [one for one in found if one.name.startswith(row.test) and one.name not in claimed]
        claimed |= {one.name for one in mine}
        if mine:
            tried = sum(one.tried for one in mine)
            failed = sum(not one.passed for one in mine)
            result = f"**{failed} of {len(mine)} tests fail**" if failed else "holds"
            yield f"{_key(suite, row)} {tried:,} | {row.bar} | {result} | {today} |"


def _key(suite: str, row: Row) -> str:
    """Return how the line of a row begins."""
    return f"| {row.number} | {row.what} | {suite} |"


def rewrite(lines: list[str]) -> None:
    """Write the page with these lines; a row that is not among them stays as it is."""
    before = TABLE.read_text().splitlines() if TABLE.exists() else []
    keys = [_key(suite, row) for suite, rows in ROWS.items() for row in rows]
    newest = {key: line for line in [*before, *lines] for key in keys if line.startswith(key)}
    never = "{key} 0 | | **not tried yet** | |"
    body = [newest.get(key) or never.replace("{key}", key) for key in keys]
    TABLE.write_text(_HEAD + "\n".join(body) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
