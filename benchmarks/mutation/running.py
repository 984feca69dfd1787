"""One mutant in one forked process; nothing on disk is changed."""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
import types
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

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


def preload() -> None:
    """Import what takes longer than the tests, before the forks."""
    for name in PRELOADED:
        importlib.import_module(name)


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
def check_unbroken(path: str, tests: tuple[str, ...]) -> float:
    """Return how many seconds the tests take on the code as it is.

    If they fail on it, that ends the run with a sentence: then nothing is learned.
    """
    text = (ROOT / path).read_text(encoding="utf-8")
    began = time.monotonic()
    if not survives(Mutant(path, 0, "nothing", text, tests, timeout_seconds=600.0)):
        raise SystemExit(f"{', '.join(tests)} fails without any mutant; run it alone first.")
    return time.monotonic() - began


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
        # File by file, the nearest first: most mutants die there, and the rest is not imported.
        for tests in mutant.tests:
            found = int(pytest.main([*options, "-m", "not slow", tests]))
            if found == pytest.ExitCode.NO_TESTS_COLLECTED:
                continue
            code = found
            if code != pytest.ExitCode.OK:
                break
    finally:
        os._exit(code)
