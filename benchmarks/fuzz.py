"""Random manifests, bundles, custom resources and requests: a sentence or success, nothing else.

    python -m benchmarks.fuzz [--count 10000] [--only bundles]

*Manifests* have one to three random changes. Of *bundles* a random file is cut off, extended,
mixed or has changed bytes, mostly with records that fit, so that only its content can give it away.
Both are loaded, warmed up and run as the server does. *Custom resources* are ModelRollouts (seven
in ten) and TrainingRuns over the whole schema and beyond it, edited at random while the operator
reconciles them in virtual time. *HTTP requests* and *gRPC requests* go to a server in a process of
its own, eight at a time: mutated good ones, well-formed ones with random content, and random bytes.
Over HTTP half of the clients leave after 50 ms without a response. A status of 5xx, a gRPC status
that blames the server, and a traceback in its log are failures. Memory is the resident memory of
the process that handles them, after a fifth of them and at the end.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np

from dwcp_ml.contract.bundle import MANIFEST_NAME, SIGNATURE_NAME
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS
from tests.export.bundles import finalize_again, manifest_of
from tests.export.test_mutated_manifests import mutated, serve
from tests.operator.random_rollouts import RandomRollout
from tests.operator.random_trainings import RandomTraining
from tests.serving import random_requests
from tests.serving.bundles import make_bundle
from tests.serving.running import TIMEOUT_SECONDS, Server

PROGRESS_SECONDS: Final = 60.0
SEED: Final = 2026

FAILED: Final = "FAILED"

CONNECTIONS: Final = 8

GRPC_REFUSED: Final = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""The fault is the caller's."""

Tries = Iterator[str]
"""What became of each try, in a word; the traceback of one that failed is on the error stream."""

_HEAD: Final = (
    "| what | tried | outcomes | memory after a fifth | at the end | minutes |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


@dataclass
class Handler:
    """The process whose memory is measured: this one, or the server."""

    process: str = "self"


def manifests(directory: Path, count: int, _handler: Handler) -> Tries:
    """Change manifests of all four models, and serve the bundles."""
    rng = np.random.default_rng(SEED)
    bundles = [make_bundle(directory, name) for name in MODELS]
    whole = [manifest_of(bundle) for bundle in bundles]
    for _ in range(count):
        place = rng.integers(len(bundles))
        changed = mutated(whole[place], rng)
        (bundles[place] / MANIFEST_NAME).write_text(json.dumps(changed))
        yield _served(bundles[place])


def bundles(directory: Path, count: int, _handler: Handler) -> Tries:
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


def resources(_directory: Path, count: int, _handler: Handler) -> Tries:
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


def http_requests(directory: Path, count: int, handler: Handler) -> Tries:
    """Send random requests over HTTP, half of them mutated ones."""
    rng = random.Random(SEED)
    kinds = (
        random_requests.mutated, random_requests.with_random_body,
        random_requests.mutated, random_requests.random_bytes,
    )  # fmt: skip
    contents = ((rng.choice(kinds)(rng), rng.random()) for _ in range(count))
    with _server(directory, handler) as server:

        def outcome_of(content: tuple[bytes, float]) -> str:
            sent, seed = content
            of_this = random.Random(seed)
            seconds = of_this.choice((0.05, 1.0))  # some leave before their response
            try:
                responses = random_requests.send(server, sent, of_this, seconds)
            except ConnectionRefusedError:
                return _failed(server, sent, "connection refused")
            statuses = [status for status, _, _ in responses]
            if any(status >= 500 for status in statuses):
                return _failed(server, sent, str(statuses))
            return f"{statuses[0] // 100}xx" if statuses else "left, or no whole request"

        yield from _with_log(server, _all(outcome_of, contents, count))


def grpc_requests(directory: Path, count: int, handler: Handler) -> Tries:
    """Send random messages over gRPC, half of them readable."""
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    rng, whole = random.Random(SEED), random_requests.good_message(pb)
    contents = (
        random_requests.random_message(pb, rng)
        if number % 2
        else random_requests.mutated_message(whole, rng)
        for number in range(count)
    )
    with (
        _server(directory, handler) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        def outcome_of(content: bytes) -> str:
            try:
                call(content, timeout=TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                code = error.code()
                return code.name if code in GRPC_REFUSED else _failed(server, content, code.name)
            return "OK"

        yield from _with_log(server, _all(outcome_of, contents, count))


@contextmanager
def _server(directory: Path, handler: Handler) -> Iterator[Server]:
    """Run a server of all four models, which must stop with exit code 0."""
    for name in MODELS:
        make_bundle(directory / "models", name)
    server = Server(directory / "models", directory)
    handler.process = str(server.process.pid)
    try:
        yield server
        if code := server.stop():
            raise SystemExit(f"The server ended with exit code {code}.")
    finally:
        server.kill()


def _all(outcome_of: Callable[[Any], str], contents: Iterator[Any], count: int) -> Tries:
    """Yield the outcomes of a few requests at a time, so that few wait in memory."""
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        for start in range(0, count, 10 * CONNECTIONS):
            some = itertools.islice(contents, min(10 * CONNECTIONS, count - start))
            yield from pool.map(outcome_of, some)


def _with_log(server: Server, outcomes: Tries) -> Tries:
    """Yield the outcomes; the last one is a failure if the server has logged a traceback."""
    last = next(outcomes)
    for outcome in outcomes:
        yield last
        last = outcome
    yield _failed(server, b"", "a traceback in the log") if "Traceback" in server.log() else last


def _failed(server: Server, content: bytes, what: str) -> str:
    sys.stderr.write(f"{what}: {content!r}\n{server.log()[-2000:]}\n")
    return FAILED


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


def resident_megabytes(process: str) -> float:
    """Return the resident memory of a process, of this one without garbage to be collected.

    It still rises with the largest try so far: freed memory is not all given back.
    """
    gc.collect()
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


KINDS: Final[dict[str, Callable[[Path, int, Handler], Tries]]] = {
    "manifests": manifests,
    "bundles": bundles,
    "custom resources": resources,
    "HTTP requests": http_requests,
    "gRPC requests": grpc_requests,
}


def measured(what: str, count: int) -> str:
    """Try one kind, with progress on the error stream; return its line."""
    outcomes: Counter[str] = Counter()
    began = shown = time.monotonic()
    memory, handler = {}, Handler()
    early = max(count // 5, 1)
    with tempfile.TemporaryDirectory() as directory:
        for number, outcome in enumerate(KINDS[what](Path(directory), count, handler), 1):
            outcomes[outcome] += 1
            if number in (early, count):
                memory[number] = resident_megabytes(handler.process)
            if time.monotonic() - shown > PROGRESS_SECONDS:
                shown = time.monotonic()
                sys.stderr.write(f"{what}: {number:,} of {count:,}\n")
    told = ", ".join(f"{number:,} {outcome}" for outcome, number in outcomes.most_common())
    minutes = (time.monotonic() - began) / 60.0
    return (
        f"| {what} | {count:,} | {told} | {memory[early]:.0f} MB | {memory[count]:.0f} MB | "
        f"{minutes:.0f} |"
    )


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
