"""Machine time from an empty directory to the last command of each tutorial.

A fresh clone, its own environment, and the tutorials pasted block by block as their tests do it.
Reading and typing are not included. Downloads come from the caches of the machine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

ROOT: Final = Path(__file__).parents[1]
REJECTED: Final = 3

TUTORIALS: Final = (
    ("ml-engineer", "ML engineer", "tests/docs/test_ml_tutorial.py"),
    ("go-developer", "Go developer", "tests/docs/test_go_tutorial.py"),
    ("platform-engineer", "platform engineer", "tests/cluster/operator/test_tutorial.py"),
)
"""Name of the page, for whom it is, and the test that pastes it."""


def main() -> None:
    """Measure, and print the table."""
    print("\n".join(table()))


def table() -> Iterator[str]:
    """Yield the lines of the table: seconds of each part, and from the clone to the last line."""
    with tempfile.TemporaryDirectory() as directory:
        clone = Path(directory) / "dwcp-ml"
        cloned = timed(["git", "clone", "--quiet", str(ROOT), str(clone)], ROOT)
        ready = timed(["make", ".venv/.ready"], clone)
        # The page trains the models that it calls; its test uses small graphs instead.
        words = [".venv/bin/dwcp-ml", "train", "--parallel", "--epochs", "2", "--set", "days=1"]
        trained = timed([*words, "--no-check-api"], clone, REJECTED)
        yield "| tutorial | clone | set-up | before its first block | its blocks | in all |"
        yield "| --- | --- | --- | --- | --- | --- |"
        for page, person, test in TUTORIALS:
            before = trained if page == "go-developer" else 0.0
            pasted, preparation = pasted_seconds(clone, test)
            before += preparation
            whole = (cloned, ready, before, pasted)
            parts = " | ".join(f"{seconds:.0f} s" for seconds in whole)
            yield f"| [{person}](../../docs/tutorials/{page}.md) | {parts} | {sum(whole):.0f} s |"
        yield ""
        yield "Before its first block: for the Go developer two epochs of training, for the"
        yield "platform engineer a small cluster, whose programs were built before."


def timed(command: Sequence[str], place: Path, code: int = 0) -> float:
    """Run a command; return its seconds."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    if done.returncode != code:
        sys.exit(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-2000:]}")
    return time.monotonic() - began


def pasted_seconds(clone: Path, test: str) -> tuple[float, float]:
    """Run the test of a page; return the seconds of its blocks, and of what came before them."""
    report = clone / "report.xml"
    command = [
        ".venv/bin/pytest", "-q", "-n", "1", "-m", "pipeline or go or server or cluster", test,
        "--timeout", "1200", f"--junitxml={report}", "-o", "junit_duration_report=call",
    ]  # fmt: skip
    whole = timed(command, clone)
    cases = ElementTree.parse(report).iter("testcase")
    pasted = sum(float(case.get("time") or 0.0) for case in cases)
    return pasted, whole - pasted


if __name__ == "__main__":
    main()
