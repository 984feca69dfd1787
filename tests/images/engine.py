"""Containers of the built images, confined as the manifests confine them, and cut off."""

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ENGINE = os.environ.get("ENGINE", "docker")
USER = 65532
MINUTE = 60.0

CONFINED = (
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp:rw,noexec,nosuid,nodev,mode=1777",
    f"--user={USER}:{USER}",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
)


def engine(*words: str, seconds: float = MINUTE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ENGINE, *words], capture_output=True, text=True, timeout=seconds, check=False
    )


def inspect(image: str) -> dict:
    return json.loads(engine("image", "inspect", image).stdout)[0]


class Image:
    """One of the images that ``make images`` built."""

    def __init__(self, name: str, tag: str) -> None:
        self.name = name
        self.tag = tag

    def run(
        self,
        *words: str,
        entrypoint: str | None = None,
        options: Sequence[str] = (),
        seconds: float = MINUTE,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        entry = () if entrypoint is None else (f"--entrypoint={entrypoint}",)
        return engine("run", "--rm", *CONFINED, *entry, *options, self.tag, *words, seconds=seconds)

    def python(self, program: str, *options: str, seconds: float = MINUTE) -> str:
        """Run a Python program in a container; return what it printed."""
        done = self.run("-c", program, entrypoint="python3", options=options, seconds=seconds)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    @contextlib.contextmanager
    def running(self, *words: str, options: Sequence[str] = ()) -> Iterator["Container"]:
        """Start a container, and take it away in the end."""
        done = engine("run", "--detach", *CONFINED, *options, self.tag, *words)
        assert done.returncode == 0, done.stderr
        container = Container(done.stdout.strip())
        try:
            yield container
        finally:
            engine("rm", "--force", container.id)


class Container:
    """A container that runs."""

    def __init__(self, identity: str) -> None:
        self.id = identity

    def python(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program inside, as the container's own user."""
        return engine("exec", self.id, "python3", "-c", program, *words)

    def logs(self) -> str:
        done = engine("logs", self.id)
        return done.stdout + done.stderr

    def await_success(self, program: str, seconds: float = MINUTE) -> float:
        """Run a program inside until it succeeds; return how long that took."""
        started = time.monotonic()
        while self.python(program).returncode != 0:
            late = time.monotonic() > started + seconds
            assert not late, f"not ready after {seconds} s:\n{self.logs()}"
            assert self.state()["Running"], f"it ended:\n{self.logs()}"
            time.sleep(0.2)
        return time.monotonic() - started

    def state(self) -> dict:
        return json.loads(engine("container", "inspect", self.id).stdout)[0]["State"]

    def stop(self) -> int:
        """Send SIGTERM, wait, and return the exit code."""
        engine("stop", "--time=30", self.id)
        return self.state()["ExitCode"]


def shared(directory: Path, where: str, *, writable: bool = False) -> tuple[str, ...]:
    """Return the option that mounts a directory; the container's user may read it, or write it."""
    for path in (directory, *directory.rglob("*")):
        path.chmod(path.stat().st_mode | (0o777 if path.is_dir() and writable else 0o444))
        if path.is_dir():
            path.chmod(path.stat().st_mode | 0o555)
    return (f"--volume={directory}:{where}{'' if writable else ':ro'}",)
