"""Try what users, a sceptic and a statistician broke, and write the table docs/reported-faults.md.

    python -m benchmarks.reported_faults          all of them: a few minutes
    python -m benchmarks.reported_faults -k node  some, as pytest names them

Each row names the tests that try it. Only the rows whose tests ran are updated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.faults import ROOT, Case, cases

TABLE: Final = ROOT / "docs" / "reported-faults.md"

_HEAD: Final = """# What users of such systems report, tried here

`make faults` tries these and writes this page. *Before* is what commit 4484633 did. The number of
cases is that of the tests' parameters. How often the decision errs, on simulated traffic, is in
[the statistical tests](canary-tests.md).

| trial | before | required | cases | result | date |
| --- | --- | --- | --- | --- | --- |
"""


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Parameters
    ----------
    trial
        What is done.
    before, required
        What the product did, and what it must do.
    tests
        Files under ``tests/``, each with the beginning of a test's name after ``::``.
    """

    trial: str
    before: str
    required: str
    tests: tuple[str, ...]


FAULTS: Final = (
    # The decision.
    Fault("a candidate answers 400 to everything", "promoted", "rolled back",
          ("rollout/test_decide.py::test_a_candidate_that_rejects",)),
    Fault("each kind of trouble, and the candidate fails everything",
          "most kinds switched roll-back off", "rolled back within 60 s",
          ("operator/test_trouble.py::test_a_candidate_that_fails_everything",)),
    Fault("each kind of trouble, and an abort", "many kinds blocked it",
          "weight 0 in the next reconciliation",
          ("operator/test_trouble.py::test_an_abort",)),
    Fault("each kind of trouble, and time", "some rises went through", "the weight does not rise",
          ("operator/test_trouble.py::test_the_weight_does_not_rise",)),
    Fault("the cluster's fault: image pull, quota, missing secret, node pressure",
          "rolled back and blocked for ever", "held, with the reason",
          ("operator/test_cluster_problems.py::",
           "operator/test_forbidden.py::test_pods_that_a_quota_forbids")),
    Fault("somebody reverts a promotion", "nothing was said", "a condition, no fight",
          ("operator/test_other_writers.py::test_a_promotion_that_another_writer_reverts",)),
    # The cluster.
    Fault("every field of KServe's PredictorSpec in the template",
          "copied with the operator's rights",
          "a closed list is copied, all others are refused",
          ("operator/test_closed_template.py::",)),
    Fault("bundles at link-local, loopback and cluster-internal addresses", "fetched", "refused",
          ("operator/test_addresses.py::",)),
    Fault("forged manifests", "56 of 1,010 ended in a KeyError", "one sentence",
          ("export/test_mutated_manifests.py::", "export/test_malicious_manifests.py::")),
    Fault("the roles of users, and tokens in pods", "`modelrollouts/status` was given away",
          "no role of a user has it; a token only where it is used",
          ("manifests/test_manifests.py::test_a_role_for_users",
           "manifests/test_manifests.py::test_only_the_operator",
           "manifests/test_manifests.py::test_an_account_of_ours",
           "manifests/test_manifests.py::test_the_pipeline")),
    # Reported faults, by their row.
    Fault("1: rows with a trailing comma, in files of any size",
          "`IndexError` from 120,000 rows on",
          "exit code 4, one sentence",
          ("data/test_corruption.py::test_rows_that_are_all_malformed",)),
    Fault("2: a connection goes silent without a reset (Go client)", "every call failed for 60 s",
          "calls recover in seconds",
          ("go/test_go_client.py::test_passes_its_own_tests",)),
    Fault("4: Kubeflow rejects a submission, or a run ends without a state", "no condition at all",
          "a condition with the server's sentence; an end",
          ("operator/test_training_reconcile.py::test_a_rejected_submission",
           "operator/test_training_reconcile.py::test_an_unknown_state",
           "operator/test_training_reconcile.py::test_a_run_that_ends_without")),
    Fault("5: the API server forbids a write", "\"the candidate is not ready\"",
          "its own sentence in a condition", ("operator/test_forbidden.py::",)),
    Fault("6: another controller restores the InferenceService", "722 writes in two hours, no word",
          "`Stalled` with the writer's name, few writes",
          ("operator/test_other_writers.py::",)),
    Fault("7: clocks that jitter or drift, ten rows a second", "24 % of the rows quarantined",
          "kept",
          ("data/test_subsecond.py::",)),
    Fault("8: one node as `1`, `1.0`, `\" 1 \"`", "0 of 786 rows matched", "one node",
          ("contract/test_keys.py::",)),
    Fault("10: line breaks in quotes, at any size", "rows lost without a word", "read",
          ("data/test_corruption.py::test_line_breaks",)),
    Fault("11: white space around a column's name", "\"is missing\"", "ignored",
          ("data/test_corruption.py::test_white_space",)),
    Fault("12: proxy variables", "never used", "used by every client",
          ("test_http_client.py::",)),
    Fault("15: arms whose histograms have different buckets", "66 minutes without a condition",
          "`Stalled` after a minute, counted",
          ("operator/test_reconcile_stalled.py::test_arms_with_different",)),
    Fault("19: the gate's headline after `--strict`", "\"1 of 1 models approved\" beside REJECTED",
          "0 of 1", ("evaluation/test_gate_session.py::",)),
    Fault("23: long work without a terminal", "silent for five minutes",
          "a line for each step and every 30 s", ("cli/test_step_lines.py::",)),
    Fault("24: markup and emoji in foreign text", "`:x:` shown as ❌", "as it is",
          ("cli/test_terminal.py::",)),
)  # fmt: skip


def main(given: list[str]) -> int:
    """Run the tests, print the rows, and write them into the page; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    _, words = parser.parse_known_args(given)
    files = dict.fromkeys(test.partition("::")[0] for fault in FAULTS for test in fault.tests)
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        command = [
            sys.executable, "-m", "pytest", "-q", "-m", "not cluster", f"--junitxml={report}",
            *(f"tests/{name}" for name in files), *words,
        ]  # fmt: skip
        code = subprocess.run(command, check=False, cwd=ROOT).returncode
        lines = list(table(list(cases(report))))
    print("\n".join(lines), flush=True)
    rewrite(lines)
    return code


def prefix_of(test: str) -> str:
    """Return how ``Case`` names the tests of a row: ``test_keys.test_the``."""
    file, _, name = test.partition("::")
    return f"{Path(file).stem}.{name}"


def table(results: list[Case]) -> Iterator[str]:
    """Yield the line of each fault of which a test ran."""
    today = time.strftime("%Y-%m-%d")
    for fault in FAULTS:
        prefixes = tuple(prefix_of(test) for test in fault.tests)
        tests = [case for case in results if case.name.startswith(prefixes)]
        if tests:
            failed = sum(not case.passed for case in tests)
            result = f"**{failed} of {len(tests)} fail**" if failed else "holds"
            tried = sum(case.tried for case in tests)
            cells = (fault.before, fault.required, f"{tried:,}", result, today)
            yield f"{_key(fault)} {' | '.join(cells)} |"


def _key(fault: Fault) -> str:
    return f"| {fault.trial} |"


def rewrite(lines: list[str]) -> None:
    """Write the page with these lines; other rows stay unchanged."""
    before = TABLE.read_text().splitlines() if TABLE.exists() else []
    newest = {
        key: line for line in [*before, *lines] for key in map(_key, FAULTS) if line.startswith(key)
    }
    body = [
        newest.get(_key(fault))
        or f"{_key(fault)} {fault.before} | {fault.required} | 0 | **not tried yet** | |"
        for fault in FAULTS
    ]
    TABLE.write_text(_HEAD + "\n".join(body) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
