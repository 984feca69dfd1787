"""What a process uses, as Linux counts it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TICK = 1.0 / os.sysconf("SC_CLK_TCK")
"""Unit of ``/proc/PID/stat``, seconds."""


@dataclass(frozen=True)
class Usage:
    """Processor time since the start of a process and its descendants, or of a machine.

    Parameters
    ----------
    ticks
        User and system time of ``/proc/PID/stat``, also of threads that have ended, to 10 ms.
    nanoseconds
        Thread -> time of ``/proc/PID/task/TID/schedstat``, exact, of the threads that live.
    machine
        Busy time of all cores together, by whomever, seconds.
    """

    ticks: int
    nanoseconds: dict[int, int]
    machine: float

    @classmethod
    def now(cls, pid: int) -> Usage:
        """Return what a process has used until now.

        Raises
        ------
        FileNotFoundError
            If there is no such process.
        """
        ticks, nanoseconds = 0, {}
        for process in family(pid):
            ticks += ticks_of((process / "stat").read_text())
            for thread in (process / "task").iterdir():
                try:
                    run = (thread / "schedstat").read_text().split()[0]
                except OSError:  # it has ended, or this kernel does not count
                    continue
                nanoseconds[int(thread.name)] = int(run)
        return cls(ticks, nanoseconds, busy_seconds(Path("/proc/stat").read_text()))

    def seconds_since(self, before: Usage) -> float:
        """Return the processor seconds since then.

        The exact figure, unless a thread has ended in between, which only the coarse one includes.
        """
        if before.nanoseconds and before.nanoseconds.keys() <= self.nanoseconds.keys():
            used = sum(self.nanoseconds.values()) - sum(before.nanoseconds.values())
            if used > 0:
                return used / 1e9
        return (self.ticks - before.ticks) * TICK


@dataclass(frozen=True)
class Memory:
    """Memory of a process and its descendants, MB of 2^20 bytes.

    Parameters
    ----------
    pss
        Of shared pages only its part.
    rss
        All resident pages.
    """

    pss: float
    rss: float

    @classmethod
    def now(cls, pid: int) -> Memory:
        texts = [(process / "smaps_rollup").read_text() for process in family(pid)]
        pss, rss = (sum(kilobytes(text, field) for text in texts) for field in ("Pss", "Rss"))
        return cls(pss / 1024, rss / 1024)


def family(pid: int) -> list[Path]:
    """Return the directories of a process and its descendants."""
    found = [Path(f"/proc/{pid}")]
    for process in found:
        for thread in (process / "task").iterdir():
            try:
                children = (thread / "children").read_text().split()
            except OSError:
                continue
            found += [Path(f"/proc/{child}") for child in children]
    return found


def ticks_of(stat: str) -> int:
    """Return user and system time of ``/proc/PID/stat``; a name may hold spaces and brackets.

    >>> ticks_of("7 (a) b) c) S 1 7 7 0 -1 0 0 0 0 0 30 12 0 0")
    42
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def busy_seconds(stat: str) -> float:
    r"""Return the time of ``/proc/stat`` in which the cores were neither idle nor waiting.

    >>> busy_seconds("cpu  100 0 50 9999 9999 1 2 0 70 0\ncpu0 100 0 50") == 153 * TICK
    True
    """
    user, nice, system, _idle, _wait, irq, soft, steal, *_ = map(
        int, stat.partition("\n")[0].split()[1:]
    )
    return (user + nice + system + irq + soft + steal) * TICK


def kilobytes(rollup: str, field: str) -> int:
    r"""Return a field of ``/proc/PID/smaps_rollup``.

    >>> kilobytes("0-1 ---p [rollup]\nRss:  20 kB\nPss:  7 kB\nPss_Anon:  5 kB\n", "Pss")
    7
    """
    (line,) = (line for line in rollup.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1])
