"""A page pasted into a shell, block by block, and what it shows held against what comes out.

The blocks of a page are pasted into one bash, in their order, so that what one leaves, a variable,
a directory, a program in the background, is there for the next. A command that fails is a failure
of the page, unless the page expects it (``|| echo "exit code $?"``). A block of ``text`` or
``json`` below one that was pasted is what the page says comes out: each of its lines has to come,
in this order; ``…`` stands for anything.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

from tests.docs.pages import blocks_of

_END = "--- end of block"
_PRELUDE = """
set -m +o history
trap '[ "$?" = 0 ] || printf "%s\\n" "line $LINENO: $BASH_COMMAND" >> "$_FAILED"' ERR
set -E
"""


def alike_but_for(*changes):
    """Return a function that takes out of a text what is another at every run.

    Parameters
    ----------
    changes
        (pattern, what stands in its place), in their order.
    """

    def alike(text):
        for pattern, replacement in changes:
            text = re.sub(pattern, replacement, text)
        return text

    return alike


class Pasted:
    """A shell that blocks are pasted into; use it in a ``with``.

    Parameters
    ----------
    place
        Where it begins.
    scratch
        A directory of its own.
    seconds
        What one block may take.
    """

    def __init__(self, place, scratch, seconds=120.0, **environment):
        self.scratch = scratch
        self.seconds = seconds
        self.times = []
        self._failed = scratch / "failed"
        words = {**os.environ, "TMPDIR": str(scratch), "_FAILED": str(self._failed), **environment}
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"], cwd=place, env=words, text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        self._send(_PRELUDE)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        """End the shell, and what it left running; at once where something failed."""
        self._send("kill $(jobs -p) 2> /dev/null; trap - ERR; exit 0\n")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1 if kind else 10.0)
        deadline = time.monotonic() + 10.0
        while (left := _session(self._process.pid)) and time.monotonic() < deadline:
            for one in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, signal.SIGKILL)
            time.sleep(0.01)  # a process that was killed is there for a moment yet
        self._process.wait(10.0)
        self._process.stdin.close()
        self._process.stdout.close()

    def paste(self, text):
        """Run one block; return what it printed.

        Raises
        ------
        AssertionError
            If a command of it failed, or it took too long.
        """
        began = time.monotonic()
        self._failed.write_text("")
        block = self.scratch / "block.sh"
        block.write_text(text)
        self._send(f". {block} < /dev/null; printf '\\n%s\\n' '{_END}'\n")
        out = self._read()
        self.times.append((round(time.monotonic() - began, 1), text.split("\n", 1)[0]))
        failed = self._failed.read_text()
        assert not failed, f"{failed}{text}\nprinted:\n{out}"
        return out

    def _send(self, text):
        try:
            self._process.stdin.write(text)
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def _read(self):
        """Return what is printed before the mark; select would not see what a buffer holds."""
        out, deadline, source = b"", time.monotonic() + self.seconds, self._process.stdout.fileno()
        while True:
            ready, _, _ = select.select([source], [], [], max(deadline - time.monotonic(), 0.0))
            part = os.read(source, 65536) if ready else b""
            assert part, f"no end within {self.seconds} s:\n{out.decode()}"
            out += part
            text, mark, _ = out.decode(errors="replace").partition(f"\n{_END}\n")
            if mark:
                return text.rstrip("\n") + "\n"


def _session(leader):
    """Return what runs of a session: jobs of a shell have process groups of their own."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rpartition(") ")[2].split()
            if int(after_name[3]) == leader and after_name[0] != "Z":
                found.add(int(stat.parent.name))
    return found


def paste_page(path, shell, *, change=lambda text: text, alike=lambda line: line, after=None):
    """Paste a page's bash blocks; hold what it shows against what comes; return what was left out.

    Parameters
    ----------
    change
        Changes a block before it is pasted: ports, say.
    alike
        Takes out of a line what is another at every run.
    after
        Called with each block once it has been pasted.

    Returns
    -------
    list of str
        The reasons of the blocks that are not run.
    """
    left_out, printed = [], None
    for block in blocks_of(path, "bash", "text", "json"):
        if block.language == "bash":
            printed = None
            if block.not_run is not None:
                left_out.append(block.not_run)
                continue
            printed = shell.paste(change(block.text))
            if after is not None:
                after(block)
        elif printed is not None:
            hold(block.text, printed, alike, block.line)
    return left_out


def hold(shown, printed, alike, line=0):
    """Check that every line that is shown was printed, in the same order."""
    there = [alike(_plain(one)) for one in printed.splitlines()]
    at, gap = 0, True
    for one in shown.splitlines():
        if one.strip() == "…":
            gap = True
            continue
        wanted = alike(_plain(one))
        places = [place for place in range(at, len(there)) if there[place] == wanted]
        found = bool(places) and (gap or places[0] == at)
        assert found, f"line {line}: not printed: {one!r}\nprinted:\n{printed}"
        at, gap = places[0] + 1, False


def _plain(line):
    """Return a line without colours, and without what spaces do at its end."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rstrip()
