"""Random documents over the whole schema, edited at random: no crash, no rule broken, same end.

2,000 of them by ``python -m benchmarks.faults``, a twentieth by pytest.
"""

import collections

import numpy as np
import pytest

from tests.matrix import few
from tests.operator.admission import admitted, rejection_by_type
from tests.operator.crd_examples import FULL, FULL_TRAINING
from tests.operator.faulty import count, short
from tests.operator.random_documents import each_value
from tests.operator.random_rollouts import RandomRollout
from tests.operator.random_trainings import RandomTraining
from tests.operator.scenario import KEY, at, rollout

ROLLOUTS, TRAININGS = 1400, 600


def play(runs):
    """Play runs; return how many ended like a fresh one, how many did not, what was refused."""
    told = collections.Counter()
    for seed, run in runs:
        try:
            told["same end" if run.play() else "rolled back, or in the way"] += 1
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        told["refused"] += run.refused
    return told


@pytest.mark.parametrize("every", few([1, 20], 20))
@pytest.mark.parametrize("document", [FULL, FULL_TRAINING], ids=lambda one: one["kind"])
def test_the_type_says_one_sentence_of_each_value_of_each_field(document, every):
    """Whatever stands there. A real API server says the same of all: tests/cluster."""
    answers = collections.Counter()
    for path, value, made in each_value(document, np.random.default_rng(0), every):
        sentence = rejection_by_type(made)
        answers[bool(sentence)] += 1
        assert sentence.endswith(".") or not sentence, (path, value)
        assert "\n" not in sentence, (path, value)
    assert min(answers.values()) > (150 if every == 1 else 0)


def numbers():
    """Yield each spec that has one number of it at the border, and is taken by the API server."""
    found = short(steps=FULL["spec"]["steps"])
    found["spec"]["template"]["predictor"].update(minReplicas=1, maxReplicas=2)
    for path, value, made in each_value(found, np.random.default_rng(0)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and not admitted(made)[1]:
            yield path, value, made["spec"]


@pytest.mark.slow
def test_every_number_that_is_taken_can_be_acted_on(record_property):
    """However large or small: 1e-320 is above 0, and 1e300 has no upper bound."""
    tried = 0
    for path, value, spec in numbers():
        scenario = at(1, resource=rollout(dwell=10, requests=10))
        spec["template"]["predictor"].pop("maxReplicas")
        if spec["template"]["predictor"].get("minReplicas", 0) > 10:
            continue  # that many pods are slow to simulate
        scenario.edit(lambda one, spec=spec: one.update(spec=spec))
        tried += 1
        try:
            for _ in range(20):
                scenario.pass_time(10)
                scenario.operator.reconcile(KEY)
        except BaseException as error:
            error.add_note(f"{'.'.join(path)} is {value!r}")
            raise
    record_property("tried", tried)
    assert tried > 100


@pytest.mark.slow
def test_random_rollouts_end_where_a_fresh_one_does(record_property):
    record_property("tried", count(ROLLOUTS))
    told = play((seed, RandomRollout(seed)) for seed in range(count(ROLLOUTS)))
    assert told["same end"] > 0.9 * count(ROLLOUTS)
    assert told["refused"] > 0.2 * count(ROLLOUTS)


def test_random_trainings_end_where_a_fresh_one_does(record_property):
    record_property("tried", count(TRAININGS))
    told = play((seed, RandomTraining(seed)) for seed in range(count(TRAININGS)))
    assert told["same end"] > 0.9 * count(TRAININGS)
    assert told["refused"] > 0.2 * count(TRAININGS)
