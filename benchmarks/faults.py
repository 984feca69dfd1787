"""Inject every fault of the operator in full numbers, and write their table in docs/faults.md.

python -m benchmarks.faults                 all of them, and the table: an hour and a half
python -m benchmarks.faults --only cluster  those on the real API server (or memory)
python -m benchmarks.faults -k stale        some, as pytest names them

Only the rows whose tests ran are updated in the table.

Plain pytest injects a twentieth of those in memory, and `make test` a twentieth of all.
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
        The fault, and the requirement.
    test
        Beginning of the tests' names, with their file.
    """

    number: int
    what: str
    bar: str
    test: str


_HEAD: Final = """# The faults that the operator survives

`make faults` injects them in full numbers and writes this page; `make test` injects a twentieth of
them, with the same seeds.

*API in memory* is a fake API server and a simulated KServe in virtual time
(`tests/operator/memory_api.py`, `fake_kserve.py`). *Real API server* is kube-apiserver and
etcd with KServe's own controller ([what is real and what is
simulated](../tests/cluster/README.md)). The rules of every write are I1 to I5 of [the
rollout](rollout.md): a share is 0 or a step and rises one step at a time, only on a stored
passing verdict, never again after a rollback; the shares add up to 100; nothing is written
after the end. They are checked at every single change of an InferenceService.

The numbers in front are those of the list of faults that the operator was built against. What
is not here: unavailable metrics and little traffic (6 and 7) are also in the tests of
the decision itself, bad and equal candidates (12 and 13) are in [the decision
rules](decision-rules.md), and a thousand rollouts at once (11) in [its
benchmark](../benchmarks/results/operator.md). More random documents (14), and random requests
to the server, are in [the fuzz run](../benchmarks/results/fuzz.md).

| # | fault | on | cases | requirement | result | date |
| --- | --- | --- | --- | --- | --- | --- |
"""

_SAME_END: Final = "the same end as without the fault, and the rules of every write hold"

ROWS: Final = {
    _IN_MEMORY: (
        Row(1, "the process dies, or a response is lost, before or after each write", _SAME_END,
            "test_faults.test_a_fault_before_or_after"),
        Row(1, "the same twice in a row", _SAME_END, "test_faults.test_two_faults_in_a_row"),
        Row(2, "reads lag 1 to 12 versions, and return older ones after a restart", _SAME_END,
            "test_faults.test_reads_of_the_past"),
        Row(3, "each watch event dropped, or delivered three times", _SAME_END,
            "test_watch.test_each_event_dropped"),
        Row(3, "no watch event at all; an object without any event", "found within one resync",
            "test_watch.test_a_watch_that_is_silent"),
        Row(5, "other writers edit weight, candidate, steps, pause between any two calls",
            "the rules of every write hold, and it ends",
            "test_faults.test_others_who_write"),
        Row(5, "a new candidate at each point", "starts at the first step",
            "test_faults.test_a_new_candidate_begins"),
        Row(6, "metrics down, NaN, empty, stale, reset, half an hour at each step",
            "waits, with a reason, then continues; a crash-looping candidate is rolled back",
            "test_faults.test_half_an_hour"),
        Row(8, "clocks that jump or differ by hours", "the leader stays the same",
            "test_lease.test_clocks"),
        Row(9, "a leader is paused in a write, past its Lease, and resumes",
            "no write of it succeeds after the next leader's first to that object",
            "test_lease.test_a_leader_that_was_paused"),
        Row(14, "random transitions: faults, edits, restarts, bad candidates (reconciliations)",
            "the rules of every write hold", "test_faults.test_random_transitions"),
        Row(14, "random ModelRollouts, over the whole schema and beyond it",
            "no crash, one condition, the same end once it is fixed",
            "test_random_specs.test_random_rollouts"),
        Row(14, "random TrainingRuns", "no crash, one condition, the same end once it is fixed",
            "test_random_specs.test_random_trainings"),
        Row(15, "forged weights, verdicts, phases in the status, at each point", "ignored",
            "test_faults.test_what_is_shown_can_be_forged"),
    ),
    _REAL: (
        Row(1, "the process dies before or after each write of each path", _SAME_END,
            "test_crashes.test_a_crash"),
        Row(4, "one request in ten gets 429, 500, 503, no response, or a late one; API server "
            "killed once for 50 rollouts", "every rollout ends as expected",
            "test_many.test_rollouts_end"),
        Row(9, "a leader is paused in a write, past its Lease, and resumes",
            "no write of it succeeds after the next leader's first to that object",
            "test_leaders.test_a_leader_that_was_paused"),
        Row(9, "SIGSTOP and SIGCONT of a leading process", "the other one ends the rollouts",
            "test_leaders.test_a_process_that_is_stopped"),
        Row(10, "deleted in mid-rollout, with crashes and others' finalizers", "no orphan",
            "test_finalizer.test_what_is_deleted"),
        Row(10, "deleted while no operator runs, or without its InferenceService; "
            "definition upgraded and back", "is deleted when an operator runs; continues",
            "test_finalizer.test_"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """The result of one test: its name with its file, its number of cases, whether it passed."""

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
        failed, results = run(suite, words)
        code = code or failed
        lines = list(table(suite, results))
        print("\n".join(lines), flush=True)
        rewrite(lines)
    return code


def run(suite: str, words: list[str]) -> tuple[int, list[Case]]:
    """Run the tests of a suite; return the exit code and the results."""
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
        none_selected = done.returncode == 5
        return 0 if none_selected else done.returncode, list(cases(report))


def cases(report: Path) -> Iterator[Case]:
    """Yield the tests of a report; a test without the property ``tried`` has one case."""
    for case in ElementTree.parse(report).iter("testcase"):
        properties = {item.get("name"): item.get("value") for item in case.iter("property")}
        failed = any(case.find(what) is not None for what in ("failure", "error", "skipped"))
        place = (case.get("classname") or "").rpartition(".")[2]
        yield Case(f"{place}.{case.get('name')}", int(properties.get("tried") or 1), not failed)


def table(suite: str, results: list[Case]) -> Iterator[str]:
    """Yield the lines of a suite; rows without a test that ran are omitted."""
    claimed: set[str] = set()
    today = time.strftime("%Y-%m-%d")
    for row in ROWS[suite]:
        tests = [
            case for case in results if case.name.startswith(row.test) and case.name not in claimed
        ]
        claimed |= {case.name for case in tests}
        if tests:
            tried = sum(case.tried for case in tests)
            failed = sum(not case.passed for case in tests)
            result = f"**{failed} of {len(tests)} tests fail**" if failed else "holds"
            yield f"{_key(suite, row)} {tried:,} | {row.bar} | {result} | {today} |"


def _key(suite: str, row: Row) -> str:
    """Return the start of the line of a row."""
    return f"| {row.number} | {row.what} | {suite} |"


def rewrite(lines: list[str]) -> None:
    """Write the page with these lines; other rows stay unchanged."""
    before = TABLE.read_text().splitlines() if TABLE.exists() else []
    keys = [_key(suite, row) for suite, rows in ROWS.items() for row in rows]
    newest = {key: line for line in [*before, *lines] for key in keys if line.startswith(key)}
    never = "{key} 0 | | **not tried yet** | |"
    body = [newest.get(key) or never.replace("{key}", key) for key in keys]
    TABLE.write_text(_HEAD + "\n".join(body) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
