"""How many pairs the test `divergence` needs to find a fault, with two models that differ.

    python -m benchmarks.bench_divergence [--output DIR]

On each network the bandwidth predictor is trained twice: the champion and, with another seed, the
challenger; DIR keeps both, as bench_seeds does. The first half of the test split gives the gate's
record of how the two differ, the second half is the live traffic: of all links, of one link, or of
one link in the order of time, in which consecutive requests are alike. The challenger is served as
it is, which must not be rolled back, or with a wrong scale. Prints Markdown; two minutes a network.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_seeds import run
from dwcp_ml.contract.champion import NUMBERS, difference_record, signed_difference
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.models import load
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.spec import Analysis, DivergenceTest, ShadowStep
from dwcp_ml.rollout.verdict import Outcome
from dwcp_ml.training_run import training_step
from dwcp_ml.training_run.model_data import load_model_data
from dwcp_ml.training_run.options import ModelOptions

FACTORS: Final = (1.0, 1.02, 1.05, 1 / 1.05, 1.3)
ROLLOUTS: Final = 40
BLOCK: Final = 50
"""Pairs between two looks."""

ALL_LINKS, ONE_LINK, IN_ORDER = "all links", "one link", "one link, in order"

SEED: Final = 99
"""Of the challenger's training."""


class Network:
    """The predictions of champion and challenger for the test split of one network."""

    def __init__(self, seed: int, directory: Path) -> None:
        run(seed, BANDWIDTH, directory)
        trained, other = directory / "bandwidth_predictor-trained", directory / "challenger"
        if not (other / training_step.RECORD_NAME).exists():
            training_step.train_model(
                directory / "dataset", other, BANDWIDTH, ModelOptions(), version="other", seed=SEED
            )
        record = TrainingRecord.read(trained / training_step.RECORD_NAME)
        models = load(trained), load(other)
        test = load_model_data(
            directory / "dataset", BANDWIDTH, models[0].settings.data, record.form, record.seed
        ).test
        self.champion, self.challenger = (
            model.predict(test.inputs)[NUMBERS[0]].astype(np.float64) for model in models
        )
        self.links: NDArray[Any] = test.series
        self.times: NDArray[Any] = test.timestamp
        order = np.argsort(self.times, kind="stable")
        first, self.live = order[: len(test) // 2], order[len(test) // 2 :]
        self.record = difference_record(
            NUMBERS[0],
            self.champion[first],
            self.challenger[first],
            self.links[first],
            self.times[first],
        )

    def pairs_until_found(self, factor: float, traffic: str, seed: int) -> int | None:
        """Return the pairs at which a challenger that is served so is rolled back."""
        rng = np.random.default_rng(seed)
        pool = self.live
        count = ShadowStep().minimum_pairs
        if traffic != ALL_LINKS:
            pool = pool[self.links[pool] == rng.choice(np.unique(self.links[pool]))]
        rows = (
            pool[np.argsort(self.times[pool])] if traffic == IN_ORDER else rng.choice(pool, count)
        )
        test, analysis = DivergenceTest(), Analysis()
        evidence = DivergenceEvidence.start(test.tolerance, test.margin, self.record)
        for start in range(0, len(rows), BLOCK):
            evidence = evidence.update(
                [self._pair(row, factor) for row in rows[start : start + BLOCK]]
            )
            verdict = evidence.verdict(analysis.alpha_of("divergence"), analysis.promotion_alpha)
            if verdict.outcome is Outcome.FAIL:
                return evidence.pairs
        return None

    def _pair(self, row: int, factor: float) -> Pair:
        signed = signed_difference(
            NUMBERS[0], float(self.champion[row]), float(self.challenger[row]) * factor
        )
        return Pair(request_id=str(row), difference=min(abs(signed), 1.0), signed=signed)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="directory that keeps what is done")
    parser.add_argument("--seeds", type=int, nargs="*", default=[42, 7, 1001])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options.seeds, options.output or Path(scratch))


def measure(seeds: Sequence[int], output: Path) -> None:
    """Train what is not in the directory ``output`` yet, and print the table."""
    print("| network | traffic | " + " | ".join(f"x {factor:.3g}" for factor in FACTORS) + " |")
    print("|" + " --- |" * (len(FACTORS) + 2))
    for seed in seeds:
        network = Network(seed, output / str(seed))
        for traffic in (ALL_LINKS, ONE_LINK, IN_ORDER):
            cells = []
            for factor in FACTORS:
                found = [
                    network.pairs_until_found(factor, traffic, number) for number in range(ROLLOUTS)
                ]
                pairs = [each for each in found if each is not None]
                median = f", {statistics.median(pairs):.0f} pairs" if pairs else ""
                cells.append(f"{len(pairs)} of {ROLLOUTS}{median}")
            print(f"| {seed} | {traffic} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
