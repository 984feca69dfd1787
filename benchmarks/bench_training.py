"""How much sooner is the bandwidth predictor as good as one of a plain Keras script.

    python -m benchmarks.bench_training [--seed 42] [--threads 1] [--plain-epochs 30]

The same simulated data, network, batches of 32 and Adam 1e-3 for all; each in a process of its own,
one after another, with the same number of threads:

* **plain script**: what the architecture document says and nothing more: features and target
  standardised, mean squared error, dropout 0.2 to the end, ``Model.fit``, early stopping with
  patience 10.
* **plain script, our recipe**: our scaling, loss and annealed dropout, but ``Model.fit``.
* **ours**: ``dwcp_ml.models`` as it ships.
* **ours, whatever else helps**: batches of 128 at 2e-3, so not the document's settings any more.

Each row is evaluated after every epoch on the test split, which is not counted as training time.
The figure is the time that a row takes to the test MAPE that the plain script ends with, and, if it
reaches it, to the target of 5 %. Compiling counts; importing TensorFlow and making the data do not.
Processor time is measured, which other programs on the machine hardly disturb; with one thread it
is the time on the clock.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TARGET_PERCENT = 5.0
ROWS = {
    "plain": "plain script, batch 32",
    "recipe": "plain script, our recipe, batch 32",
    "ours": "ours, batch 32",
    "more": "ours, batch 128 at 2e-3",
}


def load_data(seed: int) -> Any:
    """Return the examples of the bandwidth predictor on default simulated data."""
    from dwcp_ml.data.examples import prepare
    from dwcp_ml.data.reading import load
    from dwcp_ml.models import create
    from dwcp_ml.simulate import SimulatorSettings, generate

    model = create("bandwidth")
    telemetry = generate(SimulatorSettings(seed=seed))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "telemetry.parquet"
        telemetry.frame.to_parquet(path, index=False)
        frame = load(path, list(model.spec.needed_columns))
    return prepare(model.spec, frame, model.settings.data, seed=seed)


class Track:
    """Test MAPE after each epoch, against training time alone."""

    def __init__(self, test: Any) -> None:
        self.truth = test.truth
        self.points: list[tuple[float, float]] = []
        self.started = time.process_time()
        self.evaluating = 0.0

    def evaluate(self, predict: Callable[[], np.ndarray]) -> None:
        """Judge the weights of this moment."""
        start = time.process_time()
        counted = self.truth >= 1.0
        error = np.abs(predict() - self.truth)[counted] / self.truth[counted]
        seconds = start - self.started - self.evaluating
        self.points.append((seconds, 100.0 * float(error.mean())))
        self.evaluating += time.process_time() - start


def train_plain(data: Any, seed: int, epochs: int) -> list[tuple[float, float]]:
    """Train as the architecture document says, with nothing but Keras."""
    import keras

    keras.utils.set_random_seed(seed)
    track = Track(data.test)
    mean = data.train.inputs.mean(axis=(0, 1))
    deviation = data.train.inputs.std(axis=(0, 1)) + 1e-9
    train, validation, test = (
        ((part.inputs - mean) / deviation).astype(np.float32)
        for part in (data.train, data.validation, data.test)
    )
    centre, spread = data.train.truth.mean(), data.train.truth.std()
    model = keras.Sequential(
        [
            keras.Input(train.shape[1:]),
            keras.layers.LSTM(64, return_sequences=True, dropout=0.2),
            keras.layers.LSTM(32, dropout=0.2),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")

    def predict() -> np.ndarray:
        return model.predict(test, batch_size=2048, verbose=0)[:, 0] * spread + centre

    model.fit(
        train,
        (data.train.truth - centre) / spread,
        validation_data=(validation, (data.validation.truth - centre) / spread),
        batch_size=32,
        epochs=epochs,
        verbose=0,
        callbacks=[
            keras.callbacks.EarlyStopping(patience=10, restore_best_weights=True),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: track.evaluate(predict)),
        ],
    )
    return track.points


def train_recipe(data: Any, seed: int, _epochs: int) -> list[tuple[float, float]]:
    """Train with our scaling, loss and annealing, but in ``Model.fit``."""
    import keras

    from dwcp_ml.models import create

    keras.utils.set_random_seed(seed)
    track = Track(data.test)
    model = create("bandwidth")
    model.scaling = model.fit_scaling(data.train)
    model.fitted = model.fit_targets(data.train)
    train, validation, test = (
        model.scaling.apply(part.inputs) for part in (data.train, data.validation, data.test)
    )
    targets = [model.targets(part, part.inputs) for part in (data.train, data.validation)]
    network, training = model.network(), model.training
    rates = [getattr(layer, "dropout", 0.0) for layer in network.layers]

    def predict() -> np.ndarray:
        checked = network.predict(validation, batch_size=2048, verbose=0)
        model.fitted |= model.fit_outputs(data.validation, checked)
        outputs = network.predict(test, batch_size=2048, verbose=0)[:, 0]
        scaled = outputs * model.fitted["output_scale"] + model.fitted["output_offset"]
        return np.expm1(scaled)

    optimizer = keras.optimizers.Adam(training.learning_rate)
    share = None
    for epoch in range(1, training.epochs + 1):
        if training.dropout_share(epoch, training.epochs) != share:  # a new rate, a new graph
            share = training.dropout_share(epoch, training.epochs)
            for layer, rate in zip(network.layers, rates, strict=True):
                if rate:
                    layer.cell.dropout = rate * share
            network.compile(optimizer=optimizer, loss=training.loss)
        network.fit(
            train,
            targets[0],
            validation_data=(validation, targets[1]),
            batch_size=training.batch_size,
            epochs=1,
            verbose=0,
        )
        track.evaluate(predict)
    return track.points


def train_ours(data: Any, seed: int, threads: int, overrides: Any) -> list[tuple[float, float]]:
    """Train with ``dwcp_ml.models``; its checkpoints are evaluated."""
    from dwcp_ml.models import EpochProgress, FitContext, create, storage
    from dwcp_ml.models.keras_model import batched_predictor

    model = create("bandwidth", overrides)
    evaluated = model.network()
    predict_batches = batched_predictor(evaluated, model.spec.input.shape)
    track = Track(data.test)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "checkpoint.npz"

        def predict() -> np.ndarray:
            arrays = storage.unpack(path.read_bytes())
            evaluated.set_weights([arrays[f"weights_{n}"] for n in range(len(evaluated.weights))])
            checked, outputs = (
                predict_batches(model.scaling.apply(part.inputs))["output"]
                for part in (data.validation, data.test)
            )
            fitted = model.fit_outputs(data.validation, checked)
            return np.expm1(outputs[:, 0] * fitted["output_scale"] + fitted["output_offset"])

        def on_progress(progress: EpochProgress) -> None:
            if progress.epoch - 1 > len(track.points):
                track.evaluate(predict)

        context = FitContext(
            seed=seed, threads=threads, checkpoint_directory=Path(scratch), progress=on_progress
        )
        model.fit(data, context)
    track.evaluate(lambda: model.predict(data.test.inputs)["next_throughput_mbps"])
    return track.points


def run_row(row: str, seed: int, threads: int, epochs: int) -> list[tuple[float, float]]:
    """Train one row of the table in this process."""
    from dwcp_ml.models import runtime

    data = load_data(seed)
    runtime.start(threads)
    if row == "plain":
        return train_plain(data, seed, epochs)
    if row == "recipe":
        return train_recipe(data, seed, epochs)
    more = {"training": {"batch_size": 128, "learning_rate": 0.002}} if row == "more" else {}
    return train_ours(data, seed, threads, more)


def seconds_to(points: list[list[float]], percent: float) -> float | None:
    """Return the training time after which the test MAPE first is at most ``percent``."""
    return next((seconds for seconds, mape in points if mape <= percent), None)


def table(tracks: dict[str, list[list[float]]]) -> str:
    """Return the table in Markdown."""
    reached = min(mape for _, mape in tracks["plain"])
    marks = (reached, TARGET_PERCENT)
    slow = [seconds_to(tracks["plain"], reached), seconds_to(tracks["recipe"], TARGET_PERCENT)]
    lines = [
        f"| | epochs | s an epoch | best test MAPE | s to {reached:.1f} % | times faster "
        f"| s to {TARGET_PERCENT:g} % | times faster than the recipe |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row, points in tracks.items():
        cells = [
            ROWS[row],
            str(len(points)),
            f"{points[-1][0] / len(points):.2f}",
            f"{min(mape for _, mape in points):.2f} %",
        ]
        for mark, reference in zip(marks, slow, strict=True):
            seconds = seconds_to(points, mark)
            cells.append("never" if seconds is None else f"{seconds:.1f}")
            both = seconds is not None and reference is not None
            cells.append(f"{reference / seconds:.1f}" if both else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain-epochs", type=int, default=30, help="the plain script's most")
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        points = run_row(options.row, options.seed, options.threads, options.plain_epochs)
        print(json.dumps(points))
        return
    tracks: dict[str, list[list[float]]] = {}
    for row, title in ROWS.items():
        print(f"training: {title} ...", file=sys.stderr)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.bench_training",
                f"--row={row}",
                f"--seed={options.seed}",
                f"--threads={options.threads}",
                f"--plain-epochs={options.plain_epochs}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{row}: {done.stderr.strip()}")
        tracks[row] = json.loads(done.stdout.splitlines()[-1])
    print(f"\nSeed {options.seed}, {options.threads} thread(s) each, processor time.\n")
    print(table(tracks))


if __name__ == "__main__":
    main()
