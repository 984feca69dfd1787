"""The changes that must never go unnoticed: of the split, the scaler, the threshold, parity."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.mutation.running import ROOT, Mutant


@dataclass(frozen=True)
class Named:
    """A mutant that must die: replacements of text, and the tests that kill it."""

    name: str
    path: str
    replacements: tuple[tuple[str, str], ...]
    tests: tuple[str, ...]


NAMED = (
    Named(
        "split: test rows are drawn at random instead of being the last in time",
        "dwcp_ml/data/splits.py",
        (
            (
                "    return late + (timestamp >= t_test).astype(np.int8)",
                "    whole = late + (timestamp >= t_test).astype(np.int8)\n"
                "    return np.random.default_rng(0).permutation(whole)",
            ),
        ),
        ("tests/data/test_splits.py",),
    ),
    Named(
        "split: the row at the cut is trained on and tested on the other side",
        "dwcp_ml/data/splits.py",
        (("(timestamp >= t_test)", "(timestamp > t_test)"),),
        ("tests/data/test_splits.py", "tests/data/test_leakage.py"),
    ),
    Named(
        "scaler: fitted on the test split",
        "dwcp_ml/models/keras_model.py",
        (("self.fit_scaling(learned)", "self.fit_scaling(data.test)"),),
        ("tests/models/test_conformance.py::test_test_rows_change_nothing",),
    ),
    Named(
        "scaler: fitted on the validation split",
        "dwcp_ml/models/keras_model.py",
        (("self.fit_scaling(learned)", "self.fit_scaling(checked)"),),
        ("tests/models/test_conformance.py::test_validation_rows_fit_no_scaler",),
    ),
    Named(
        "threshold: fitted on the test split",
        "dwcp_ml/models/keras_model.py",
        (
            ("self._inputs(data.validation.inputs)", "self._inputs(data.test.inputs)"),
            ("self.fit_answer(data.validation, outputs)", "self.fit_answer(data.test, outputs)"),
        ),
        ("tests/models/test_conformance.py::test_test_rows_change_nothing",),
    ),
    Named(
        "threshold: an error below it is flagged",
        "dwcp_ml/models/consensus_latency.py",
        (("ops.greater_equal(error,", "ops.less(error,"),),
        ("tests/models/test_networks.py::test_episodes_are_found_and_normal_windows_are_not",),
    ),
    Named(
        "threshold: the forest flags what lies below it",
        "dwcp_ml/models/reliability_detector.py",
        (("score >= threshold", "score < threshold"),),
        ("tests/models/test_forest.py",),
    ),
    Named(
        "threshold: baselines get it from the test split",
        "dwcp_ml/evaluation/latency.py",
        (
            (
                "scores.validation[~data.validation.truth.astype(bool)]",
                "scores.test[~data.test.truth.astype(bool)]",
            ),
        ),
        ("tests/evaluation/test_latency.py",),
    ),
    Named(
        "parity: every export is equal",
        "dwcp_ml/contract/records.py",
        (
            (
                "self.largest_relative_difference <= self.tolerance and "
                "self.flipped_decisions == 0",
                "True",
            ),
        ),
        ("tests/evaluation/test_gate.py",),
    ),
    Named(
        "parity: the smallest difference is reported instead of the largest",
        "dwcp_ml/export/parity.py",
        (("candidate[tensor.name]).max())", "candidate[tensor.name]).min())"),),
        ("tests/export/test_parity.py",),
    ),
    Named(
        "parity: no decision ever flips",
        "dwcp_ml/export/parity.py",
        (("return differs & ~near", "return differs & near & ~near"),),
        ("tests/export/test_parity.py",),
    ),
)


def named_mutant(named: Named) -> Mutant:
    """Return the mutant of one named replacement; each text must occur exactly once."""
    text = (ROOT / named.path).read_text(encoding="utf-8")
    line = 0
    for old, new in named.replacements:
        if text.count(old) != 1:
            raise SystemExit(f"{named.path} holds {text.count(old)} times: {old}")
        line = line or text[: text.index(old)].count("\n") + 1
        text = text.replace(old, new)
    return Mutant(named.path, line, named.name, text, named.tests, timeout_seconds=600.0)
