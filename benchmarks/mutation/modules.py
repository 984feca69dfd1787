"""The pure modules that are broken, and the tests that must notice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.mutation.running import ROOT

ROOMS = ("dwcp_ml/evaluation", "dwcp_ml/rollout", "dwcp_ml/rollout/evidence")
"""Every module of these rooms."""

SINGLE = ("dwcp_ml/data/splits.py", "dwcp_ml/data/windows.py", "dwcp_ml/export/parity.py")
"""Modules of rooms that are not pure as a whole."""

METRICS = tuple(
    f"tests/evaluation/test_{name}.py"
    for name in (
        "bandwidth",
        "classification",
        "reliability",
        "latency",
        "detection",
        "ceiling",
        "assessment",
    )
)
VERDICTS = tuple(f"tests/evaluation/test_{name}.py" for name in ("gate", "gate_session", "reasons"))

OTHERS: dict[str, tuple[str, ...]] = {
    **{
        f"dwcp_ml/evaluation/{name}.py": METRICS
        for name in (
            "assessment",
            "bandwidth",
            "ceiling",
            "classification",
            "detection",
            "events",
            "latency",
            "reliability",
            "standing",
        )
    },
    "dwcp_ml/evaluation/labels.py": ("tests/evaluation/report/test_tables.py", *METRICS),
    "dwcp_ml/evaluation/gate.py": VERDICTS,
    "dwcp_ml/evaluation/reasons.py": VERDICTS,
    "dwcp_ml/rollout/verdict.py": ("tests/rollout/evidence/test_verdict.py",),
}
"""Who is responsible for a module beside the test file that mirrors it."""

WHOLE = ("dwcp_ml/rollout", "dwcp_ml/rollout/evidence")
"""Rooms where every test of the room is responsible for every module: they decide together."""


def modules(only: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """Return the path of each module and its tests, the nearest first.

    Parameters
    ----------
    only
        Parts of paths: a module is taken if its path holds one of them; without any, all are.
    """
    chosen = [path for path in _paths() if not only or any(part in path for part in only)]
    if not chosen:
        raise SystemExit(f"no module's path holds {' or '.join(only)}; see {', '.join(ROOMS)}.")
    return {path: _tests_of(path) for path in chosen}


def _paths() -> Iterator[str]:
    for room in ROOMS:
        for path in sorted((ROOT / room).glob("*.py")):
            if path.name != "__init__.py":
                yield path.relative_to(ROOT).as_posix()
    yield from SINGLE


def _tests_of(path: str) -> tuple[str, ...]:
    room, _, name = path.rpartition("/")
    tests = room.replace("dwcp_ml", "tests", 1)
    mirror = f"{tests}/test_{name}"
    found = [mirror] if (ROOT / mirror).exists() else []
    found += OTHERS.get(path, ())
    if room in WHOLE:
        found += [f"{tests}/{each.name}" for each in sorted((ROOT / tests).glob("test_*.py"))]
    if not found:
        raise SystemExit(f"no test is responsible for {path}: there is no {mirror}.")
    return tuple(dict.fromkeys(found))
