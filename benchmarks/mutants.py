"""Mutation tests: break the code in small ways, one at a time, and see whether a test notices.

    python -m benchmarks.mutants                     the named mutants and a sample: ten minutes
    python -m benchmarks.mutants --minutes 60        as many as fit into an hour
    python -m benchmarks.mutants --only evaluation   those of one room
    python -m benchmarks.mutants --only rollout/decide rollout/counters
    python -m benchmarks.mutants --named             the named ones only (they train models)

Nothing on disk is changed: a mutant is compiled from the changed syntax tree and imported in a
forked process, which runs the tests that are responsible for its module, but no slow ones. It
prints Markdown; ``docs/mutation.md`` explains it.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.mutation.changes import mutants_of
from benchmarks.mutation.modules import modules
from benchmarks.mutation.named import NAMED, named_mutant
from benchmarks.mutation.running import ROOT, Mutant, check_unbroken, preload, survives


def report(title: str, results: Sequence[tuple[Mutant, bool]]) -> None:
    """Print how many died, and those that did not."""
    alive = [mutant for mutant, survived in results if survived]
    print(f"## {title}\n\n{len(results) - len(alive)} of {len(results)} killed.\n")
    if alive:
        print("| survivor | change |\n| --- | --- |")
        for mutant in sorted(alive, key=lambda each: (each.path, each.line)):
            print(f"| `{mutant.path}:{mutant.line}` | {mutant.change} |")
        print()


def main() -> int:
    """Run the mutants and print Markdown; return 1 if a named one survived."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="for the sampled mutants")
    parser.add_argument("--only", nargs="+", default=[], help="parts of modules' paths")
    parser.add_argument("--named", action="store_true", help="the named mutants only")
    parser.add_argument("--seed", type=int, default=42, help="of the sample")
    options = parser.parse_args()
    os.chdir(ROOT)
    preload()
    failed = 0 if options.only else _named()
    if not options.named:
        _sampled(options.only, options.minutes, options.seed)
    return min(failed, 1)


def _named() -> int:
    """Run the named mutants; return how many survived."""
    for named in NAMED:
        check_unbroken(named.path, named.tests)
    results = [(mutant, survives(mutant)) for mutant in map(named_mutant, NAMED)]
    print("## The named mutants\n\n| mutant | file | noticed by | |\n| --- | --- | --- | --- |")
    for mutant, survived in results:
        verdict = "**survived**" if survived else "killed"
        tests = ", ".join(f"`{test}`" for test in mutant.tests)
        print(f"| {mutant.change} | `{mutant.path}` | {tests} | {verdict} |")
    print(flush=True)
    return sum(survived for _, survived in results)


def _sampled(only: Sequence[str], minutes: float, seed: int) -> None:
    chosen = modules(only)
    everything = [mutant for path, tests in chosen.items() for mutant in mutants_of(path, tests)]
    random.Random(seed).shuffle(everything)
    usual = {
        tests: check_unbroken(path, tests)
        for tests, path in {tests: path for path, tests in chosen.items()}.items()
    }
    deadline = time.monotonic() + 60 * minutes
    results: list[tuple[Mutant, bool]] = []
    try:
        for mutant in everything:
            if time.monotonic() > deadline:
                break
            # What hangs has noticed; what is merely slow on a busy machine has not.
            patience = max(mutant.timeout_seconds, 4 * usual[mutant.tests])
            results.append((mutant, survives(replace(mutant, timeout_seconds=patience))))
            if sys.stderr.isatty():
                print(f"\r{len(results)} of {len(everything)}", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("interrupted: what was done is reported", file=sys.stderr)
    report(f"A sample of {len(results)} of {len(everything)} small changes", results)


if __name__ == "__main__":
    # One thread each: a fork of a process with many threads of its own is not safe.
    if "OPENBLAS_NUM_THREADS" not in os.environ:
        os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.mutants", *sys.argv[1:]])
    sys.exit(main())
