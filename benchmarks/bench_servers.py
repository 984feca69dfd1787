"""Processor time, latency and memory of this tree's server, beside those of another checkout.

Each round starts both servers, each on the same core, and puts the same load on one after the
other from the second core: who is first changes with every measurement. Of each protocol and
number of connections it measures

  CPU µs       the server's processor time (user and system) for a request
  p50 … p99.9  latency in a closed loop: the next request is sent when the last one is answered
  open loop    with --open-loop, the same at 80 % of the rate that the slower server managed over
               the most connections; requests are due at random times, and latency runs from then

and of each server the time until it is ready, and its memory after all load. Prints medians over
the rounds with the least and the largest value, and ratios of the same round. The generator's own
share of its core is in the table: near 1, the rates are the generator's and not the server's. So
is what all other processes used meanwhile, in cores.

    python -m benchmarks.bench_servers --models runs/latest/models --against ../other --open-loop
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.servers.arm import HERE, Checkout, Floor, Running, ServerFailed, running
from benchmarks.servers.http_load import post
from benchmarks.servers.measurement import QUANTILES
from benchmarks.servers.summary import Case, Rounds, order_of
from benchmarks.servers.usage import Memory
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.contract.models import MODELS, model_spec

PROTOCOLS = ("v1", "v2", "v2-binary", "grpc")
OPEN_SHARE = 0.8
TITLES = {
    "cpu_us": "CPU µs a request", "rps": "requests/s",
    "p50_ms": "p50 ms", "p99_ms": "p99 ms", "p99_9_ms": "p99.9 ms",
    "load_busy": "generator's core busy", "others_busy": "cores busy with others",
}  # fmt: skip
SHOWN = {"closed": tuple(TITLES), "open": ("cpu_us", "rps", *QUANTILES, "load_busy", "others_busy")}


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Parameters
    ----------
    requests
        Protocol -> the bytes of a request.
    connections
        Numbers of connections.
    rounds, seconds
        The number of rounds, and the length of a measurement.
    open_loop
        Whether to measure at a fixed rate too.
    """

    requests: Mapping[str, bytes]
    connections: tuple[int, ...]
    rounds: int
    seconds: float
    open_loop: bool


def compare(arms: list[Checkout], models: Path, plan: Plan) -> tuple[Rounds, int]:
    """Measure all rounds; return their values and the number of responses that were no 200.

    Raises
    ------
    ServerFailed
        If a server does not start or answer.
    """
    names = [arm.name for arm in arms]
    rounds, errors, turn = Rounds(names), 0, 0
    for number in range(plan.rounds):
        with contextlib.ExitStack() as stack:
            servers = {}
            for name in order_of(names, number):
                arm = next(one for one in arms if one.name == name)
                servers[name] = stack.enter_context(running(arm, models))
            for load in _loads(plan, rounds, names):
                for name in order_of(names, turn):
                    figures = servers[name].measure(seed=number, **load.job)
                    errors += figures["errors"]
                    for figure in SHOWN[load.kind]:
                        rounds.add(name, load.case(figure), figures[figure])
                turn += 1
            for name in names:
                _measure_server(rounds, name, servers[name])
        print(f"round {number + 1} of {plan.rounds} is done", file=sys.stderr, flush=True)
    return rounds, errors


@dataclass(frozen=True)
class _Load:
    kind: str
    protocol: str
    job: dict[str, Any]

    def case(self, figure: str) -> Case:
        where = f"{self.kind}, {self.job['connections']}"
        if self.kind == "open":
            where += f", at {OPEN_SHARE:.0%}"
        return Case(self.protocol, where, TITLES[figure])


def _loads(plan: Plan, rounds: Rounds, names: list[str]) -> Iterator[_Load]:
    for protocol, request in plan.requests.items():
        job = {"protocol": protocol, "request": request, "seconds": plan.seconds}
        for connections in plan.connections:
            closed = _Load("closed", protocol, job | {"connections": connections})
            yield closed
        if plan.open_loop:
            rate = min(rounds.median(name, closed.case("rps")) for name in names)
            yield _Load("open", protocol, closed.job | {"rate": OPEN_SHARE * rate})


def _measure_server(rounds: Rounds, name: str, server: Running) -> None:
    memory = Memory.now(server.pid)
    rounds.add(name, Case("server", "", "s until ready"), server.ready_seconds)
    rounds.add(name, Case("server", "after all load", "PSS MB"), memory.pss)
    rounds.add(name, Case("server", "after all load", "RSS MB"), memory.rss)


def requests_for(model: str, rows: int, protocols: tuple[str, ...]) -> dict[str, bytes]:
    """Return a request of each protocol with the same rows."""
    shape = model_spec(model).input.shape
    cells = np.random.default_rng(3).uniform(1.0, 60.0, (rows, *shape)).round(3)
    values = cells.astype(np.float32)
    tensor = {"name": "features", "datatype": "FP32", "shape": list(values.shape)}
    made = {}
    for protocol in protocols:
        if protocol == "v1":
            body = json.dumps({"instances": cells.tolist()}).encode()
            made[protocol] = post("dwcp", f"/v1/models/{model}:predict", body)
        elif protocol == "v2":
            body = json.dumps({"inputs": [{**tensor, "data": cells.ravel().tolist()}]}).encode()
            made[protocol] = post("dwcp", f"/v2/models/{model}/infer", body)
        elif protocol == "v2-binary":
            made[protocol] = _binary(model, tensor, values)
        else:
            made[protocol] = _grpc(model, values)
    return made


def _binary(model: str, tensor: dict[str, Any], values: Any) -> bytes:
    tensor = {**tensor, "parameters": {"binary_data_size": values.nbytes}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return post(
        "dwcp", f"/v2/models/{model}/infer", text + values.tobytes(), "application/octet-stream",
        {"Inference-Header-Content-Length": str(len(text))},
    )  # fmt: skip


def _grpc(model: str, values: Any) -> bytes:
    from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb

    request = pb.ModelInferRequest(model_name=model)
    request.inputs.add(name="features", datatype="FP32", shape=values.shape)
    request.inputs[0].contents.fp32_contents.extend(values.ravel().tolist())
    encoded: bytes = request.SerializeToString()
    return encoded


def small_bundles(place: Path) -> Path:
    """Write the small bundles of the tests, for want of trained ones."""
    from tests.serving.bundles import make_bundle

    for name in MODELS:
        make_bundle(place, name)
    return place


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of connections that an option names.

    >>> numbers("1,64")
    (1, 64)
    """
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(1 <= number <= 10_000 for number in found):
        raise argparse.ArgumentTypeError(
            f"expected numbers of connections from 1 to 10000 such as 1,64, not {text!r}."
        )
    return found


def protocols_of(text: str) -> tuple[str, ...]:
    """Return the protocols that an option names."""
    found = tuple(dict.fromkeys(text.split(",")))
    for name in found:
        if name not in PROTOCOLS:
            raise argparse.ArgumentTypeError(
                f"there is no protocol {name!r}; the names are {', '.join(PROTOCOLS)}."
            )
    return found


def checkout(text: str) -> Path:
    """Return the directory of a checkout."""
    directory = Path(text)
    if not (directory / "dwcp_ml" / "__init__.py").is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no checkout: it holds no dwcp_ml.")
    return directory.resolve()


def directory(text: str) -> Path:
    """Return a directory that exists."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory.")
    return Path(text).resolve()


def positive(kind: type) -> Any:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = 0
        if not 0 < value < 1e6:
            raise argparse.ArgumentTypeError(f"expected a number above 0, not {text!r}.")
        return value

    return read


class _Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong, without the usage."""

    def error(self, message: str) -> Any:
        self.exit(2, f"bench_servers: {message}\n")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line; a wrong one ends with exit code 2."""
    parser = _Parser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--models", type=directory,
                        help="directory of bundles; by default small ones are made")  # fmt: skip
    parser.add_argument("--model", choices=tuple(MODELS), default="bandwidth_predictor")
    parser.add_argument("--rows", type=positive(int), default=1, help="of a request")
    parser.add_argument("--against", type=checkout, metavar="CHECKOUT",
                        help="the other server's tree; without it only this one")  # fmt: skip
    parser.add_argument("--floor", action="store_true",
                        help="instead, Granian with nothing behind it (HTTP)")  # fmt: skip
    parser.add_argument("--against-python", type=Path, default=Path(sys.executable),
                        metavar="PYTHON", help="its interpreter, by default this one")  # fmt: skip
    parser.add_argument("--options", type=shlex.split, default=[], metavar="WORDS",
                        help="more options of this server: '--requests_port 0'")  # fmt: skip
    parser.add_argument("--rounds", type=positive(int), default=5)
    parser.add_argument("--seconds", type=positive(float), default=3.0, help="a measurement")
    parser.add_argument("--connections", type=numbers, default=(1, 64))
    parser.add_argument("--protocols", type=protocols_of, default=("v1", "v2", "grpc"))
    parser.add_argument("--open-loop", action="store_true", help="measure at a fixed rate too")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    options = arguments(words)
    arms = [Checkout("this", HERE, options=tuple(options.options))]
    if options.floor:
        arms.append(Floor("floor", HERE))
    elif options.against:
        arms.append(Checkout("other", options.against, options.against_python))
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for arm in arms:
                arm.check()
            models = options.models or small_bundles(Path(scratch))
            requests = requests_for(options.model, options.rows, options.protocols)
            plan = Plan(requests, options.connections, options.rounds, options.seconds,
                        options.open_loop)  # fmt: skip
            rounds, errors = compare(arms, models, plan)
        except (ServerFailed, DwcpError, OSError) as error:
            print(f"bench_servers: {error}", file=sys.stderr)
            return 1
    print(f"{options.model}, {options.rows} row(s) a request, {options.rounds} rounds of "
          f"{options.seconds:g} s: median (least–largest)\n")  # fmt: skip
    print("\n".join(rounds.table()))
    load = os.getloadavg()[0]
    print(f"\n{errors} responses were no 200. Load average at the end: {load:.1f} on "
          f"{os.cpu_count()} cores.")  # fmt: skip
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
