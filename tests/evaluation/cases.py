"""Whatever more than one test of the evaluation builds."""

from __future__ import annotations

import numpy as np

from dwcp_ml.contract.comparison import Comparison, ReferenceKind
from dwcp_ml.contract.records import Defect, Parity
from dwcp_ml.evaluation import evaluate


def run(data, predictions, training, ceilings=None, targets=None, leaks=(), oracle=None):
    form = data.spec.form(data.form)
    chosen = targets or form.targets
    return evaluate(data, predictions, training, chosen, ceilings, leaks, oracle=oracle)


def comparison_with(evaluation, reference, metric=None):
    """Return the comparison with a reference, by default on the primary metric."""
    pair = (reference, metric or evaluation.primary_metric)
    (found,) = (each for each in evaluation.comparisons if (each.reference, each.metric) == pair)
    return found


def with_oracle(evaluation):
    """The comparisons with the oracle, by metric."""
    found = [each for each in evaluation.comparisons if each.kind is ReferenceKind.ORACLE]
    return {each.metric: each for each in found}


def latency_case(build, examples):
    rng = np.random.default_rng(5)

    def part(n, start):
        latency = np.exp(rng.normal(3.0, 0.1, (n, 20)))
        truth = np.zeros(n, bool)
        truth[n // 2 : n // 2 + n // 10] = True
        latency[truth] *= 8
        event = np.where(truth, start, -1)
        return examples(latency, truth, timestamp=(np.arange(n) + start) * 60, event=event)

    return build(
        "consensus_latency", train=part(600, 0), validation=part(300, 1000), test=part(300, 2000)
    )


def defect(verdict: str, code: str = "out_of_range") -> Defect:
    return Defect(
        code=code,
        column="throughput_mbps",
        count=3,
        examples=(1, 2, 3),
        verdict=verdict,
        message="3 rows lie below 0.",
    )


def parity(**fields: float) -> Parity:
    usual = {
        "rows": 10,
        "largest_relative_difference": 1e-6,
        "flipped_decisions": 0,
        "tolerance": 1e-4,
    }
    return Parity(**{**usual, **fields})


def comparison(**fields: object) -> Comparison:
    usual = {
        "reference": "last_value",
        "kind": "naive",
        "metric": "mape_percent",
        "requirement": "better",
        "model_value": 4.6,
        "reference_value": 5.5,
        "improvement": 0.9,
        "lower": 0.5,
        "upper": 1.3,
        "resamples": 2000,
    }
    return Comparison(**{**usual, **fields})


def oracle_comparison(**fields: object) -> Comparison:
    """A comparison with an oracle that is worse than the model."""
    usual = {
        "reference": "oracle",
        "kind": "oracle",
        "requirement": "not_better",
        "reference_value": 5.0,
        "improvement": 0.4,
        "lower": 0.1,
        "upper": 0.7,
    }
    return comparison(**{**usual, **fields})
