"""Whether the test `divergence` stops a detector with a constant flag or score, and no good one.

    python -m benchmarks.bench_rare_flags [--output DIR]

On each network a detector is trained with three seeds; each ordered pair of them is champion and
challenger, and DIR keeps them, as bench_seeds does. The first half of the test split gives the
gate's record, the second half is the live traffic, in the order of time, so that flags come in
incidents: of all links, or of one link. Each look has 50 of 500 requests, and of the others those
that the champion flags, as the stable's servers keep them. The challenger is served as it is, which
must not be rolled back, or with a fault; with its record or without. The second table has simulated
flags: a good challenger drops whole incidents. Prints Markdown; six minutes, without the training.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.bench_seeds import run
from dwcp_ml.contract.champion import SCORES, DifferenceRecord, difference_record
from dwcp_ml.contract.models import LATENCY, RELIABILITY, ModelSpec
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.models import load
from dwcp_ml.rollout.evidence.divergence import DivergenceEvidence
from dwcp_ml.rollout.observation import Pair
from dwcp_ml.rollout.spec import Analysis, DivergenceTest, ShadowStep
from dwcp_ml.rollout.verdict import Outcome
from dwcp_ml.serving.kept_requests import MAX_OF_ANSWER
from dwcp_ml.training_run import training_step
from dwcp_ml.training_run.model_data import load_model_data
from dwcp_ml.training_run.options import ModelOptions

SEEDS: Final = (99, 100)
"""Of the further trainings."""

LOOK: Final = 50
"""Pairs of the traffic between two looks."""

BETWEEN: Final = 500
"""Requests of the stable between two looks: of these all flagged ones are kept."""

ROLLOUTS: Final = 20
ALPHA: Final = Analysis().alpha_of("divergence")

Floats = NDArray[np.float64]
Served = tuple[NDArray[Any], Floats]
"""The flags and the scores that a candidate responds with, (n,) each."""

FAULTS: Final[dict[str, Callable[[Served, float], Served]]] = {
    "as trained": lambda served, _: served,
    "always false": lambda served, _: (np.zeros_like(served[0]), served[1]),
    "always true": lambda served, _: (np.ones_like(served[0]), served[1]),
    "constant score": lambda served, score: (served[0], np.full_like(served[1], score)),
}


class Detector:
    """The predictions of one model of one network for its test split."""

    def __init__(self, spec: ModelSpec, directory: Path, seed: int, training: Path) -> None:
        record, model = TrainingRecord.read(training / training_step.RECORD_NAME), load(training)
        test = load_model_data(
            directory / "dataset", spec, model.settings.data, record.form, seed
        ).test
        predictions = model.predict(test.inputs)
        (self.output,) = set(SCORES) & set(predictions)
        self.flags = predictions[self.output].astype(np.float64)
        self.scores = predictions[SCORES[self.output]].astype(np.float64)
        self.links: NDArray[Any] = test.series
        self.times: NDArray[Any] = test.timestamp


def detectors(spec: ModelSpec, seed: int, directory: Path) -> list[Detector]:
    """Return the detectors of a network; train what is not in the directory yet."""
    run(seed, spec, directory)
    trained = [directory / f"{spec.name}-trained"]
    for other in SEEDS:
        target = directory / f"{spec.name}-{other}"
        if not (target / training_step.RECORD_NAME).exists():
            training_step.train_model(
                directory / "dataset", target, spec, ModelOptions(), version="other", seed=other
            )
        trained.append(target)
    return [Detector(spec, directory, seed, each) for each in trained]


class Rollouts:
    """A champion and a challenger, and what is rolled out of them."""

    def __init__(self, champion: Detector, challenger: Detector) -> None:
        self.champion, self.challenger = champion, challenger
        order = np.argsort(champion.times, kind="stable")
        first, self.live = order[: len(order) // 2], order[len(order) // 2 :]
        self.record = difference_record(
            champion.output,
            champion.flags[first],
            challenger.flags[first],
            champion.links[first],
            champion.times[first],
            (champion.scores[first], challenger.scores[first]),
        )

    def rows(self, of_one_link: bool, rng: np.random.Generator) -> NDArray[Any]:
        """Return live traffic in the order of time, from some moment on, round and round."""
        pool, champion = self.live, self.champion
        if of_one_link:  # of those that have a flag
            flagged = champion.links[pool[champion.flags[pool] == 1]]
            pool = pool[champion.links[pool] == rng.choice(np.unique(flagged))]
        return np.roll(pool, -int(rng.integers(len(pool))))

    def pairs_until_found(
        self, fault: str, of_one_link: bool, recorded: bool, rng: np.random.Generator
    ) -> tuple[bool, int, int]:
        """Return whether it was rolled back, after how many pairs, and how many were flagged."""
        rows = self.rows(of_one_link, rng)
        middle = float(np.median(self.champion.scores[self.live]))
        served = FAULTS[fault]((self.challenger.flags, self.challenger.scores), middle)
        test = DivergenceTest()
        record = self.record if recorded else None
        evidence = DivergenceEvidence.start(test.tolerance, test.margin, record, flag=True)
        flagged = 0
        for look in range(40):
            start = look * BETWEEN
            block = np.take(rows, range(start, start + BETWEEN), mode="wrap")
            of_traffic = block[:: BETWEEN // LOOK]
            rare = np.setdiff1d(block[self.champion.flags[block] == 1], of_traffic)[-MAX_OF_ANSWER:]
            rare = rare[np.argsort(self.champion.times[rare], kind="stable")]
            flagged += len(rare)
            evidence = evidence.update(
                [self._pair(row, served) for row in of_traffic]
                + [self._pair(row, served, rare=True) for row in rare]
            )
            verdict = evidence.verdict(ALPHA, Analysis().promotion_alpha)
            if verdict.outcome is Outcome.FAIL:
                return True, evidence.pairs, flagged
            enough = evidence.pairs >= ShadowStep().minimum_pairs
            if enough and evidence.answer_waited(ALPHA) is None:
                break
        return False, evidence.pairs, flagged

    def _pair(self, row: int, served: Served, *, rare: bool = False) -> Pair:
        champion = self.champion
        flag, score = champion.flags[row], champion.scores[row]
        changed = float(served[0][row] != flag)
        return Pair(
            request_id=str(row), difference=changed, signed=changed, answer=int(flag), rare=rare,
            score=(served[1][row] - score) / max(1.0, abs(score)),
        )  # fmt: skip


def incidents(
    rng: np.random.Generator, count: int, length: int, dropped: float
) -> tuple[Floats, Floats]:
    """Return flags and whether they change, (n,) each: incidents that are dropped as a whole."""
    flags, changed = [], []
    for _ in range(count):
        own = 1 + int(rng.geometric(1.0 / length))
        calm = 49 * own
        flags += [0.0] * calm + [1.0] * own
        changed += [0.0] * calm + [float(rng.random() < dropped)] * own
    return np.array(flags), np.array(changed)


def false_alarms(length: int, dropped: float, recorded: bool) -> int:
    """Return how many of 200 good candidates are rolled back; a pair a look is of the traffic."""
    failed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        record: DifferenceRecord | None = None
        if recorded:
            flags, changed = incidents(rng, 40, length, dropped)
            record = difference_record("is_anomaly", flags, np.abs(flags - changed))
        evidence = DivergenceEvidence.start(0.1, 0.1, record, flag=True)
        for _ in range(20):
            flags, changed = incidents(rng, 5, length, dropped)
            rows = np.flatnonzero(flags)[-MAX_OF_ANSWER:]
            evidence = evidence.update(
                [
                    Pair(
                        request_id=str(row), difference=changed[row], signed=changed[row],
                        answer=int(flags[row]), rare=True,
                    )
                    for row in rows
                ]
            )  # fmt: skip
            if evidence.verdict(ALPHA).outcome is Outcome.FAIL:
                failed += 1
                break
    return failed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="directory that keeps what is done")
    parser.add_argument("--seeds", type=int, nargs="*", default=[42, 7])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(options.seeds, options.output or Path(scratch))
    print("\n| length of an incident | dropped | by the record | without a record |")
    print("|" + " --- |" * 4)
    for length, dropped in itertools.product((5, 25, 100), (0.02, 0.1)):
        with_record, without = (false_alarms(length, dropped, each) for each in (True, False))
        print(f"| {length} | {dropped:.0%} | {with_record} of 200 | {without} of 200 |", flush=True)


def measure(seeds: Sequence[int], output: Path) -> None:
    """Train what is not in the directory ``output`` yet, and print the table."""
    print("| network | model | record | traffic | " + " | ".join(FAULTS) + " |")
    print("|" + " --- |" * (len(FAULTS) + 4))
    for seed, spec in itertools.product(seeds, (RELIABILITY, LATENCY)):
        trained = detectors(spec, seed, output / str(seed))
        rollouts = [Rollouts(*pair) for pair in itertools.permutations(trained, 2)]
        for recorded, of_one_link in itertools.product((True, False), (False, True)):
            cells = [_cell(rollouts, fault, of_one_link, recorded) for fault in FAULTS]
            traffic = "one link" if of_one_link else "all links"
            print(
                f"| {seed} | {spec.short_name} | {'yes' if recorded else 'no'} | {traffic} | "
                + " | ".join(cells) + " |", flush=True,
            )  # fmt: skip


def _cell(rollouts: Sequence[Rollouts], fault: str, of_one_link: bool, recorded: bool) -> str:
    found = [
        rollout.pairs_until_found(fault, of_one_link, recorded, np.random.default_rng(number))
        for number, rollout in itertools.product(range(ROLLOUTS), rollouts)
    ]
    failed = [each[1:] for each in found if each[0]]
    cell = f"{len(failed)} of {len(found)}"
    if not failed:
        return cell
    pairs, flagged = (statistics.median(each) for each in zip(*failed, strict=True))
    return f"{cell}, {pairs:.0f} pairs and {flagged:.0f} flagged"


if __name__ == "__main__":
    main()
