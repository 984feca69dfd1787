"""Mutation tests: break the code in small ways, one at a time, and see whether a test notices.

    python -m benchmarks.mutants                     the named mutants and a sample: ten minutes
    python -m benchmarks.mutants --minutes 60        as many as fit into an hour
    python -m benchmarks.mutants --only ceiling      those of one module
    python -m benchmarks.mutants --named             the named ones only (they train models)

Nothing on disk is changed: a mutant is compiled from the changed syntax tree and imported in a
forked process, which runs the tests that are responsible for its module. It prints Markdown;
``docs/mutation.md`` explains it.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.abc
import importlib.machinery
import os
import random
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TESTS: dict[str, tuple[str, ...]] = {
    "dwcp_ml/evaluation/assessment.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/bandwidth.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/ceiling.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/classification.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/comparison.py": ("tests/evaluation/test_comparison.py",),
    "dwcp_ml/evaluation/contenders.py": ("tests/evaluation/test_contenders.py",),
    "dwcp_ml/evaluation/events.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/evidence.py": ("tests/evaluation/test_evidence.py",),
    "dwcp_ml/evaluation/folds.py": ("tests/evaluation/test_folds.py",),
    "dwcp_ml/evaluation/gate.py": ("tests/evaluation/test_gate.py",),
    "dwcp_ml/evaluation/latency.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/reasons.py": ("tests/evaluation/test_gate.py",),
    "dwcp_ml/evaluation/reliability.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/standing.py": ("tests/evaluation/test_assessment.py",),
    "dwcp_ml/evaluation/wording.py": (
        "tests/evaluation/report/test_tables.py",
        "tests/evaluation/test_assessment.py",
    ),
    "dwcp_ml/data/splits.py": ("tests/data/test_splits.py",),
    "dwcp_ml/data/windows.py": ("tests/data/test_windows.py",),
    "dwcp_ml/export/parity.py": ("tests/export/test_parity.py",),
}
"""Pure modules, and the tests that must notice when one is broken."""

PRELOADED = (
    "numpy",
    "pandas",
    "pydantic",
    "pytest",
    "hypothesis",
    "hypothesis.extra.numpy",
    "scipy.stats",
    "sklearn.metrics",
    "sklearn.neighbors",
    "matplotlib.backends.backend_svg",
    "jinja2",
)
"""Imported once, before the forks: they take longer than the tests."""


@dataclass(frozen=True)
class Mutant:
    """One way to break one module."""

    path: str
    line: int
    change: str
    source: str
    tests: tuple[str, ...]
    timeout_seconds: float = 90.0

    @property
    def module(self) -> str:
        """The name under which the mutant is imported."""
        return self.path.removesuffix(".py").replace("/", ".")


@dataclass(frozen=True)
class Named:
    """A mutant that must die: replacements of text, and the tests that kill it."""

    name: str
    path: str
    replacements: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


NAMED = (
    Named(
        "split: test rows are drawn at random instead of being the last in time",
        "dwcp_ml/data/splits.py",
        (
            (
                "    return late + (timestamp >= t_test).astype(np.int8)",
                "    whole = late + (timestamp >= t_test).astype(np.int8)\n"
                "    return np.random.default_rng(0).permutation(whole)",
            ),
        ),
        ("tests/data/test_splits.py",),
    ),
    Named(
        "split: the row at the cut is trained on and tested on the other side",
        "dwcp_ml/data/splits.py",
        (("(timestamp >= t_test)", "(timestamp > t_test)"),),
        ("tests/data/test_splits.py", "tests/data/test_leakage.py"),
    ),
    Named(
        "scaler: fitted on the test split",
        "dwcp_ml/models/networked.py",
        (("self.fit_scaling(learned)", "self.fit_scaling(data.test)"),),
        ("tests/models/test_conformance.py::test_test_rows_change_nothing",),
    ),
    Named(
        "scaler: fitted on the validation split",
        "dwcp_ml/models/networked.py",
        (("self.fit_scaling(learned)", "self.fit_scaling(checked)"),),
        ("tests/models/test_conformance.py::test_validation_rows_fit_no_scaler",),
    ),
    Named(
        "threshold: fitted on the test split",
        "dwcp_ml/models/networked.py",
        (
            ("self._inputs(data.validation.inputs)", "self._inputs(data.test.inputs)"),
            ("self.fit_answer(data.validation, outputs)", "self.fit_answer(data.test, outputs)"),
        ),
        ("tests/models/test_conformance.py::test_test_rows_change_nothing",),
    ),
    Named(
        "threshold: an error below it is flagged",
        "dwcp_ml/models/consensus_latency.py",
        (("ops.greater_equal(error,", "ops.less(error,"),),
        ("tests/models/test_networks.py::test_episodes_are_found_and_normal_windows_are_not",),
    ),
    Named(
        "threshold: the forest flags what lies below it",
        "dwcp_ml/models/reliability_detector.py",
        (("score >= threshold", "score < threshold"),),
        ("tests/models/test_forest.py",),
    ),
    Named(
        "threshold: baselines get it from the test split",
        "dwcp_ml/evaluation/latency.py",
        (
            (
                "scores.validation[~data.validation.truth.astype(bool)]",
                "scores.test[~data.test.truth.astype(bool)]",
            ),
        ),
        ("tests/evaluation/test_assessment.py",),
    ),
    Named(
        "parity: every export is equal",
        "dwcp_ml/contract/records.py",
        (
            (
                "self.largest_relative_difference <= self.tolerance and "
                "self.flipped_decisions == 0",
                "True",
            ),
        ),
        ("tests/evaluation/test_gate.py",),
    ),
    Named(
        "parity: the smallest difference is reported instead of the largest",
        "dwcp_ml/export/parity.py",
        (("candidate[tensor.name]).max())", "candidate[tensor.name]).min())"),),
        ("tests/export/test_parity.py",),
    ),
    Named(
        "parity: no decision ever flips",
        "dwcp_ml/export/parity.py",
        (("return differs & ~near", "return differs & near & ~near"),),
        ("tests/export/test_parity.py",),
    ),
)

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "min": "max",
    "max": "min",
    "argmax": "argmin",
    "argmin": "argmax",
    "any": "all",
    "all": "any",
    "minimum": "maximum",
    "maximum": "minimum",
    "mean": "sum",
}


def mutants_of(path: str, tests: Sequence[str]) -> Iterator[Mutant]:
    """Yield every mutant of one module that the operators know."""
    text = (ROOT / path).read_text(encoding="utf-8")
    places = len(_places(ast.parse(text)))
    for position in range(places):
        tree = ast.parse(text)
        node, change = _places(tree)[position]
        before = ast.unparse(node)
        change()
        after = ast.unparse(node)
        if before == after:
            continue
        words = f"`{_short(before)}` → `{_short(after)}`"
        yield Mutant(path, node.lineno, words, ast.unparse(tree), tuple(tests))


def _short(code: str) -> str:
    line = " ".join(code.split()).replace("|", "∣")
    return line if len(line) <= 70 else f"{line[:67]}…"


Place = tuple[ast.AST, Callable[[], None]]


def _places(tree: ast.Module) -> list[Place]:
    """Return what can be changed in a tree, in order: the smallest statement or expression."""
    found: list[Place] = []
    skipped = {id(inner) for node in ast.walk(tree) for inner in _not_code(node)}
    for node in ast.walk(tree):
        if id(node) not in skipped:
            found += _changes(node)
    return found


def _not_code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what says types, not what to do."""
    hints = []
    if isinstance(node, ast.AnnAssign):
        hints.append(node.annotation)
    if isinstance(node, ast.arg) and node.annotation:
        hints.append(node.annotation)
    if isinstance(node, ast.ClassDef):
        hints += node.decorator_list
    if isinstance(node, ast.FunctionDef):
        hints += [*node.decorator_list, *([node.returns] if node.returns else [])]
    if isinstance(node, ast.JoinedStr):
        hints.append(node)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        hints.append(node)
    for hint in hints:
        yield from ast.walk(hint)


def _changes(node: ast.AST) -> Iterator[Place]:  # noqa: C901 - a flat list of cases
    def put(field: str, value: object) -> Place:
        return node, lambda: setattr(node, field, value)

    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        yield put("ops", [COMPARISONS[type(node.ops[0])](), *node.ops[1:]])
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield put("op", OPERATORS[type(node.op)]())
    elif isinstance(node, ast.BoolOp):
        yield put("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.operand, ast.Constant):
        # Twice the operator is none: the node keeps its place in the tree.
        yield put("operand", ast.UnaryOp(node.op, node.operand))
    elif isinstance(node, ast.IfExp | ast.If | ast.While):
        yield put("test", ast.UnaryOp(ast.Not(), node.test))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield put("value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield put("value", node.value + 1 if isinstance(node.value, int) else node.value * 2 or 1.0)
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield put("attr", NAMES[node.attr])
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield put("id", NAMES[node.id])
    elif isinstance(node, ast.Continue | ast.AugAssign):
        yield node, lambda: _erase(node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield put("value", ast.Constant(None))


def _erase(node: ast.AST) -> None:
    """Turn a statement into ``pass``."""
    node.__class__ = ast.Pass
    node.__dict__ = {"lineno": getattr(node, "lineno", 0), "col_offset": 0}


def named_mutant(named: Named) -> Mutant:
    """Return the mutant of one named replacement; each text must occur exactly once."""
    text = (ROOT / named.path).read_text(encoding="utf-8")
    line = 0
    for old, new in named.replacements:
        if text.count(old) != 1:
            raise SystemExit(f"{named.path} holds {text.count(old)} times: {old}")
        line = line or text[: text.index(old)].count("\n") + 1
        text = text.replace(old, new)
    return Mutant(named.path, line, named.name, text, named.tests, timeout_seconds=600.0)


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a mutant's source instead of the file's."""

    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(ROOT / mutant.path))
        self.mutant = mutant

    def get_code(self, fullname: str) -> types.CodeType:
        return compile(self.mutant.source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self,
        fullname: str,
        path: object,
        target: object = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.mutant.module:
            return None
        return importlib.util.spec_from_file_location(
            fullname, ROOT / self.mutant.path, loader=_Loader(self.mutant)
        )


def survives(mutant: Mutant) -> bool:
    """Return whether every responsible test still passes; a test that hangs has noticed."""
    child = os.fork()
    if child == 0:
        _run_tests(mutant)
    deadline = time.monotonic() + mutant.timeout_seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


@functools.cache
def check_unbroken(path: str, tests: tuple[str, ...]) -> None:
    """End with a sentence if the tests fail on the code as it is: then nothing is learned."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if not survives(Mutant(path, 0, "nothing", text, tests, timeout_seconds=600.0)):
        raise SystemExit(f"{', '.join(tests)} fails without any mutant; run it alone first.")


def _run_tests(mutant: Mutant) -> None:
    import pytest

    code = 99
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        sys.meta_path.insert(0, _Finder(mutant))
        options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-seed=0"]
        # Tests in other processes would not see the mutant.
        options += ["-n0"]
        code = int(pytest.main([*options, "-m", "not slow", *mutant.tests]))
    finally:
        os._exit(code)


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
    parser.add_argument("--only", default="", help="part of a module's path")
    parser.add_argument("--named", action="store_true", help="the named mutants only")
    parser.add_argument("--seed", type=int, default=42, help="of the sample")
    options = parser.parse_args()
    os.chdir(ROOT)
    for name in PRELOADED:
        importlib.import_module(name)
    failed = 0
    if not options.only:
        for named in NAMED:
            check_unbroken(named.path, named.tests)
        results = [(mutant, survives(mutant)) for mutant in map(named_mutant, NAMED)]
        failed = sum(survived for _, survived in results)
        print("## The named mutants\n\n| mutant | file | noticed by | |\n| --- | --- | --- | --- |")
        for mutant, survived in results:
            verdict = "**survived**" if survived else "killed"
            tests = ", ".join(f"`{test}`" for test in mutant.tests)
            print(f"| {mutant.change} | `{mutant.path}` | {tests} | {verdict} |")
        print(flush=True)
    if not options.named:
        _sampled(options.only, options.minutes, options.seed)
    return min(failed, 1)


def _sampled(only: str, minutes: float, seed: int) -> None:
    chosen = [item for item in TESTS.items() if only in item[0]]
    everything = [mutant for path, tests in chosen for mutant in mutants_of(path, tests)]
    random.Random(seed).shuffle(everything)
    for path, tests in chosen:
        check_unbroken(path, tests)
    deadline = time.monotonic() + 60 * minutes
    results: list[tuple[Mutant, bool]] = []
    try:
        for mutant in everything:
            if time.monotonic() > deadline:
                break
            results.append((mutant, survives(mutant)))
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
