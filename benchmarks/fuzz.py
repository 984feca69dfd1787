"""Random manifests, bundles and custom resources: a sentence or success, never another exception.

    python -m benchmarks.fuzz [--count 10000] [--only bundles]

*Manifests* have one to three random changes. Of *bundles* a random file is cut off, extended,
mixed or has changed bytes, mostly with records that fit, so that only its content can give it away.
Both are loaded, warmed up and run as the server does. *Custom resources* are ModelRollouts (seven
in ten) and TrainingRuns over the whole schema and beyond it, edited at random while the operator
reconciles them in virtual time. Memory is the resident memory after a fifth of them and at the end.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from dwcp_ml.contract.bundle import MANIFEST_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS
from tests.export.bundles import finalize_again, manifest_of
from tests.export.test_mutated_manifests import mutated, serve
from tests.operator.random_rollouts import RandomRollout
from tests.operator.random_trainings import RandomTraining
from tests.serving.bundles import make_bundle

PROGRESS_SECONDS: Final = 60.0
SEED: Final = 2026

FAILED: Final = "FAILED"

Tries = Iterator[str]
"""What became of each try, in a word; the traceback of one that failed is on the error stream."""

_HEAD: Final = (
    "| what | tried | outcomes | memory after a fifth | at the end | minutes |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


def manifests(directory: Path, count: int) -> Tries:
    """Change manifests of all four models, and serve the bundles."""
    rng = np.random.default_rng(SEED)
    bundles = [make_bundle(directory, name) for name in MODELS]
    whole = [manifest_of(bundle) for bundle in bundles]
    for _ in range(count):
        place = rng.integers(len(bundles))
        changed = mutated(whole[place], rng)
        (bundles[place] / MANIFEST_NAME).write_text(json.dumps(changed))
        yield _served(bundles[place])


def bundles(directory: Path, count: int) -> Tries:
    """Spoil files of bundles of all four models, and serve them."""
    rng = np.random.default_rng(SEED)
    whole = [make_bundle(directory / "whole", name) for name in MODELS]
    spoilt = directory / "spoilt"
    for _ in range(count):
        shutil.rmtree(spoilt, ignore_errors=True)
        shutil.copytree(whole[rng.integers(len(whole))], spoilt)
        files = [path for path in sorted(spoilt.rglob("*")) if path.is_file()]
        file = files[rng.integers(len(files))]
        file.write_bytes(_spoilt(file.read_bytes(), rng))
        if rng.random() < 0.8 and file.name not in (MANIFEST_NAME, SIGNATURE_NAME):
            finalize_again(spoilt)
        yield _served(spoilt)


def resources(_directory: Path, count: int) -> Tries:
    """Reconcile random custom resources until a fresh one would have ended."""
    for seed in range(SEED, SEED + count):
        run: Any = RandomRollout(seed) if seed % 10 < 7 else RandomTraining(seed)
        try:
            same = run.play()
        except Exception:
            sys.stderr.write(f"seed {seed}\n")
            traceback.print_exc()
            yield FAILED
            continue
        yield "refused" if run.refused else "same end" if same else "rolled back, or in the way"


def _served(bundle: Path) -> str:
    try:
        serve(bundle)
    except DwcpError as error:
        sentence = str(error)
        if sentence.endswith(".") and "\n" not in sentence:
            return "refused"
        traceback.print_exc()
        return FAILED
    except Exception:
        traceback.print_exc()
        return FAILED
    return "served"


def _spoilt(content: bytes, rng: np.random.Generator) -> bytes:
    """Return other content: cut off, extended, in another order, or with other bytes."""
    kind, length = rng.integers(4), max(len(content), 1)
    if kind == 0:
        return content[: rng.integers(length)]
    if kind == 1:
        return content + rng.bytes(int(rng.integers(1, 2 * length)))
    if kind == 2:
        start, end = sorted(rng.integers(length, size=2))
        return content[end:] + content[start:end] + content[:start]
    changed = bytearray(content or b"\0")
    for place in rng.integers(len(changed), size=rng.integers(1, 9)):
        changed[place] = rng.integers(256)
    return bytes(changed)


def resident_megabytes() -> float:
    """Return the resident memory of this process, without garbage that waits for its collection.

    It still rises with the largest try so far: freed memory is not all given back.
    """
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


KINDS: Final[dict[str, Callable[[Path, int], Tries]]] = {
    "manifests": manifests,
    "bundles": bundles,
    "custom resources": resources,
}


def measured(what: str, count: int) -> str:
    """Try one kind, with progress on the error stream; return its line."""
    outcomes: Counter[str] = Counter()
    began = shown = time.monotonic()
    early = 0.0
    with tempfile.TemporaryDirectory() as directory:
        for number, outcome in enumerate(KINDS[what](Path(directory), count), 1):
            outcomes[outcome] += 1
            if number == max(count // 5, 1):
                early = resident_megabytes()
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                sys.stderr.write(f"{what}: {number:,} of {count:,}\n")
    told = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.most_common())
    minutes = (time.monotonic() - began) / 60.0
    end = resident_megabytes()
    return f"| {what} | {count:,} | {told} | {early:.0f} MB | {end:.0f} MB | {minutes:.0f} |"


def main() -> int:
    """Try all kinds, print a table in Markdown, and return 1 if one failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="of each kind")
    parser.add_argument("--only", choices=list(KINDS))
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print(_HEAD, flush=True)
    lines = []
    for what in [options.only] if options.only else KINDS:
        lines.append(measured(what, options.count))
        print(lines[-1], flush=True)
    return int(any(FAILED in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
