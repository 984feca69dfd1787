"""Compare predictions of the Go client, over HTTP, gRPC and in process, with the graph in Python.

Every model gets the same random and extreme inputs, those of the parity check of exports, one row a
request, eight requests at once. A difference is relative, |a - b| / max(1, |a|), to the graph in
this process; a flip is a different class or flag. Prints a Markdown table.

    python -m benchmarks.bench_agreement --models runs/latest/models
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dwcp_ml.contract.models import model_spec
from dwcp_ml.export.probes import probe_inputs
from dwcp_ml.serving.repository import load_models
from dwcp_ml.training_run.go_client_check import find_client
from dwcp_ml.training_run.model_server import running_server

WAYS = ("http", "grpc", "in process")


@dataclass(frozen=True)
class Agreement:
    """One protocol of one model, compared with the graph in this process."""

    model: str
    way: str
    rows: int
    worst: float
    flipped: int


def measure(models_dir: Path, rows: int) -> list[Agreement]:
    """Send ``rows`` inputs to every model over every protocol."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        program = build(place, "dwcp-predict")
        models = load_models(models_dir.resolve())
        inputs = {
            name: probe_inputs(
                model_spec(name), np.empty((0, *model.shape), np.float32), n=rows, seed=7
            )
            for name, model in models.items()
        }
        _write_rows(place / "rows.jsonl", inputs)
        expected = {name: _one_by_one(model, inputs[name]) for name, model in models.items()}
        measured: list[Agreement] = []
        with running_server(models_dir.resolve()) as server:
            targets = {
                "http": ["-address", f"http://{server.http}"],
                "grpc": ["-address", f"grpc://{server.grpc}"],
                "in process": ["-bundles", str(models_dir.resolve()), "-library", str(library())],
            }
            for way in WAYS:
                output = place / f"{way}.jsonl"
                words = ["-input", str(place / "rows.jsonl"), "-output", str(output)]
                subprocess.run([str(program), *targets[way], *words], check=True, timeout=600)
                predictions = _read_predictions(output)
                measured += [
                    _compare(name, way, expected[name], predictions[name]) for name in models
                ]
        return measured


def build(directory: Path, name: str) -> Path:
    """Return a program of the Go client, built with ONNX Runtime inside."""
    client = find_client()
    program = directory / name
    command = [str(client.go), "build", "-tags", "onnxruntime", "-o", str(program), f"./cmd/{name}"]
    subprocess.run(command, cwd=client.source, check=True, timeout=600)
    return program


def library() -> Path:
    """Return ONNX Runtime's own library, as the Python package has it."""
    spec = importlib.util.find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    (path,) = Path(spec.origin).parent.glob("capi/libonnxruntime.so.*")
    return path


def _one_by_one(model: Any, rows: Any) -> dict[str, Any]:
    outputs = [model.run(row[None]) for row in rows]
    return {name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]}


def _write_rows(path: Path, inputs: dict[str, Any]) -> None:
    with path.open("w") as file:
        for name, rows in inputs.items():
            for row in rows.reshape(len(rows), -1).tolist():
                file.write(json.dumps({"model": name, "features": row}) + "\n")


def _read_predictions(path: Path) -> dict[str, list[dict[str, Any]]]:
    predictions: dict[str, list[dict[str, Any]]] = {}
    with path.open() as file:
        for line in file:
            row = json.loads(line)
            predictions.setdefault(row["model"], []).append(row["prediction"])
    return predictions


def _compare(
    name: str, way: str, expected: dict[str, Any], predictions: list[dict[str, Any]]
) -> Agreement:
    worst, flipped = 0.0, 0
    for output, values in expected.items():
        given = np.array([prediction[output] for prediction in predictions])
        if given.shape != values.shape:
            raise SystemExit(f"{name} {way}: {output} has shape {given.shape}, not {values.shape}")
        if values.dtype.kind == "f":
            apart = np.abs(given - values) / np.maximum(1.0, np.abs(values))
            worst = max(worst, float(apart.max()))
        else:
            flipped += int((given != values).sum())
    return Agreement(name, way, len(predictions), worst, flipped)


def table(measured: list[Agreement]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| model | protocol | rows | largest relative difference | decisions that differ |"
    yield "| --- | --- | --- | --- | --- |"
    for row in measured:
        way = {"http": "Go over HTTP", "grpc": "Go over gRPC", "in process": "Go, in process"}
        yield f"| {row.model} | {way[row.way]} | {row.rows:,} | {row.worst:.1e} | {row.flipped} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("runs/latest/models"))
    parser.add_argument("--rows", type=int, default=10_000, help="for each model")
    options = parser.parse_args()
    print("\n".join(table(measure(options.models, options.rows))))


if __name__ == "__main__":
    main()
