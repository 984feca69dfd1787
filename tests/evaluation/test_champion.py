"""The champion beside a challenger: the record, the comparison, the verdict and the report."""

from datetime import UTC, datetime

import numpy as np
import pytest

from dwcp_ml.contract.champion import (
    QUANTILES,
    RUN,
    ChampionCheck,
    ChampionSource,
    Lineage,
    NotCompared,
)
from dwcp_ml.contract.comparison import Outcome, ReferenceKind
from dwcp_ml.evaluation import gate_model, gate_session, model_html, model_markdown
from dwcp_ml.evaluation.champion import Champion, overlap_note, with_champion
from dwcp_ml.evaluation.reasons import Severity, rejection_reasons
from dwcp_ml.evaluation.report.comparisons import champion as champion_table
from dwcp_ml.evaluation.report.comparisons import comparisons
from dwcp_ml.evaluation.report.tables import approval
from tests.evaluation.cases import comparison

OUTPUT, DIGEST = "next_throughput_mbps", "ab" * 32
SOURCE = ChampionSource(uri="s3://models/bandwidth_predictor/v0", named=False)


def noisy(data, percent, seed=7):
    """Predictions of the test split with this relative error, as the model's outputs."""
    noise = np.random.default_rng(seed).normal(0.0, percent / 100.0, len(data.test))
    return {OUTPUT: data.test.truth * (1.0 + noise)}


def compared(data, challenger, champion, rule="not_worse"):
    return with_champion(data, challenger, Champion("v0", DIGEST, champion), rule)


def test_the_record_has_the_champions_metrics_on_the_challengers_test_split(bandwidth):
    data, _ = bandwidth
    challenger, champion = noisy(data, 1.0), noisy(data, 4.0, seed=8)
    record, found = compared(data, challenger, champion)
    truth, theirs, own = data.test.truth, champion[OUTPUT], challenger[OUTPUT]
    mape = float(np.mean(np.abs(theirs - truth) / truth) * 100.0)
    assert (record.version, record.digest) == ("v0", DIGEST)
    assert record.metrics["mape_percent"] == pytest.approx(mape)
    assert record.metrics["correlation"] == pytest.approx(np.corrcoef(theirs, truth)[0, 1])
    relative = (own - theirs) / np.maximum(1.0, np.abs(theirs))
    assert record.difference.changed == pytest.approx(np.mean(np.abs(relative) > 0.005))
    assert record.difference.quantiles == pytest.approx(np.quantile(relative, QUANTILES))
    differs, of_runs = np.abs(relative) > 0.005, []
    for link in (0, 1):
        rows = np.flatnonzero(data.test.series == link)
        rows = rows[np.argsort(data.test.timestamp[rows])]
        of_runs += [differs[run].mean() for run in np.array_split(rows, len(rows) // RUN)]
    assert record.difference.largest_changed == pytest.approx(max(of_runs))
    assert (found.kind, found.reference, found.metric) == (
        ReferenceKind.CHAMPION, "v0", "mape_percent",
    )  # fmt: skip
    assert found.reference_value == pytest.approx(mape)
    assert found.improvement == pytest.approx(found.reference_value - found.model_value)


@pytest.mark.parametrize(
    ("percent", "outcome", "passes"),
    [
        (1.0, Outcome.BETTER, {"not_worse", "better", "off"}),
        (None, Outcome.AS_GOOD, {"not_worse", "off"}),
        (9.0, Outcome.WORSE, {"off"}),
    ],
)
def test_the_rule_says_what_is_required(bandwidth, percent, outcome, passes):
    """The challenger's error, beside a champion of 4 %; None is the same model again."""
    data, _ = bandwidth
    champion = noisy(data, 4.0, seed=8)
    challenger = champion if percent is None else noisy(data, percent)
    for rule in ("not_worse", "better", "off"):
        _, found = compared(data, challenger, champion, rule)
        assert found.outcome is outcome
        assert found.passed is (rule in passes), rule


def test_a_split_of_too_few_blocks_passes_only_without_a_rule(build, examples):
    few = examples(np.ones((4, 10, 7)), np.full(4, 50.0), timestamp=[0, 60, 120, 180])
    data = build("bandwidth_predictor", test=few)
    same = {OUTPUT: np.full(4, 51.0)}
    outcomes = {rule: compared(data, same, same, rule)[1] for rule in ("not_worse", "off")}
    assert {each.outcome for each in outcomes.values()} == {Outcome.UNKNOWN}
    assert not outcomes["not_worse"].passed
    assert outcomes["off"].passed


def test_the_margin_is_that_of_a_strong_reference(build, examples):
    """One more wrong flag in each of 30 blocks: significant, and nobody would act on it."""
    count, blocks = 36_000, 30
    truth = np.zeros(count, bool)
    truth[::20] = True
    data = build("consensus_latency", test=examples(np.ones((count, 20)), truth))
    worse = truth.copy()
    worse[count // blocks // 2 + 1 :: count // blocks] = True
    challenger, champion = (
        {"reconstruction_error": flags.astype(float), "is_high_latency": flags}
        for flags in (worse, truth)
    )
    record, found = compared(data, challenger, champion)
    assert found.improvement == pytest.approx(-blocks / count)
    assert found.margin == 0.001
    assert found.passed
    assert found.replace(margin=0.0).outcome is Outcome.WORSE
    assert record.difference.quantiles is None
    assert record.difference.changed == pytest.approx(blocks / count)


@pytest.mark.parametrize("broken", ["challenger", "champion", "length"])
def test_what_is_not_finite_or_not_complete_is_not_compared(bandwidth, broken):
    data, _ = bandwidth
    pair = {"challenger": noisy(data, 1.0), "champion": noisy(data, 2.0)}
    if broken == "length":
        pair["champion"] = {OUTPUT: pair["champion"][OUTPUT][1:]}
    else:
        pair[broken][OUTPUT][3] = np.nan
    assert compared(data, pair["challenger"], pair["champion"]) is None


def test_the_note_is_there_if_the_telemetry_of_both_overlaps(bandwidth):
    data, _ = bandwidth
    first, last = data.test.timestamp.min(), data.test.timestamp.max()

    def note(start, end):
        times = (datetime.fromtimestamp(each, UTC) for each in (start, end))
        return overlap_note(data, Lineage(data_first=next(times), data_last=next(times)))

    assert note(first - 9000, first)
    assert note(last, last + 9000)
    assert note(first + 60, last - 60)
    assert not note(first - 9000, first - 1)
    assert not note(last + 1, last + 9000)
    assert not overlap_note(data, Lineage())
    assert not overlap_note(data, None), "a bundle of an earlier version"


# the verdict


def beside(evaluation, *, requirement="not_worse", **bounds):
    """The records of a good model with a champion of MAPE 4.0."""
    found = comparison(
        reference="v0", kind="champion", requirement=requirement, reference_value=4.0,
        improvement=-0.6, **bounds,
    )  # fmt: skip
    return evaluation.replace(comparisons=(*evaluation.comparisons, found))


@pytest.mark.parametrize(
    ("requirement", "bounds", "words"),
    [
        ("not_worse", (-0.9, -0.3), "MAPE 4.60 % is worse than that of the champion v0, 4.00 %"),
        ("better", (-0.3, 0.3), "MAPE 4.60 % does not beat the champion v0, 4.00 %"),
        ("not_worse", (None, None), "unknown how the model compares with the champion v0 on MAPE"),
        ("not_worse", (-0.3, 0.3), ""),
        ("better", (0.1, 0.3), ""),
        ("none", (-0.9, -0.3), ""),
        ("none", (None, None), ""),
    ],
)
def test_a_challenger_is_rejected_for_a_reason_of_its_own(records, requirement, bounds, words):
    training, evaluation, export, data = records()
    lower, upper = bounds
    evaluation = beside(evaluation, requirement=requirement, lower=lower, upper=upper)
    found = rejection_reasons(training, evaluation, export, data)
    assert [severity for severity, _ in found] == ([Severity.CHAMPION] if words else [])
    assert all(words in text for _, text in found)
    report = gate_model(training, evaluation, export, data)
    assert report.verdict == ("REJECTED" if words else "APPROVED")
    assert ("champion" in approval(report)) is (requirement != "none")


@pytest.mark.parametrize("named", [True, False])
def test_a_champion_that_is_there_must_be_compared_by_a_strict_gate(records, named):
    """Also one that was found: on a cluster that is the live one."""
    training, evaluation, export, data = records()
    check = ChampionCheck(
        source=SOURCE.replace(named=named), not_compared=NotCompared.UNREADABLE, detail="Gone."
    )
    report = gate_model(training, evaluation.replace(champion=check), export, data)
    checks = {"integration_tests_passed": True, "go_api_compatibility": True}
    for strict in (True, False):
        session = gate_session("s", [report], data, strict=strict, **checks)
        unchecked = session.production_readiness.unchecked
        assert unchecked == {"champion_of_bandwidth_predictor": "Gone."}
        assert session.overall_success is not strict


# the report


def test_the_report_has_a_table_of_its_own(records, bandwidth):
    training, evaluation, export, data = records()
    challenger = noisy(bandwidth[0], 1.0)
    record, found = compared(bandwidth[0], challenger, noisy(bandwidth[0], 4.0, seed=8))
    check = ChampionCheck(source=SOURCE, version="v0", digest=DIGEST, record=record)
    evaluation = evaluation.replace(champion=check, comparisons=(*evaluation.comparisons, found))
    table = champion_table(evaluation)
    assert table.rows[0][0] == "MAPE"
    assert table.rows[0][-1] == "better"
    assert {row[0] for row in table.rows} >= {"correlation", "MAPE"}
    share = f"{record.difference.changed:.1%} of the {record.difference.examples} predictions"
    assert share in table.caption
    assert "v0" not in {row[0] for row in comparisons(evaluation).rows}, "it has its own table"
    report = gate_model(training, evaluation, export, data)
    assert "## Against the champion" in model_markdown(report)
    assert "Against the champion" in model_html(report)


def test_without_a_champion_there_is_no_table(records):
    report = gate_model(*records())
    assert champion_table(report.evaluation) is None
    assert "hampion" not in model_markdown(report)
    assert "hampion" not in model_html(report)
