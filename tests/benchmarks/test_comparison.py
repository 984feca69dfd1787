"""The claims of the decision benchmark, on small invented numbers."""

from benchmarks.rules.comparison import (
    Cell,
    above_alpha,
    catches_as_many,
    exposures,
    false_rollbacks,
    summary,
)
from dwcp_ml.rollout.simulation import Share, SimulatedRollout


def cell(rule, count, exposed=None, of=1000):
    places = ((1, count),) if count else ()
    seconds = 60.0 if count else None
    return Cell(rule, Share.of_counts(count, of), 0, places, seconds, exposed, exposed)


PARTNERS = {"fault": ["equal"]}


def test_a_cell_counts_what_was_caught():
    outcomes = [
        SimulatedRollout("RolledBack", 60.0, 10, 1, ""),
        SimulatedRollout("RolledBack", 180.0, 30, 5, ""),
        SimulatedRollout("RolledBack", 120.0, 20, 5, ""),
        SimulatedRollout("Promoted", 900.0, 5000, 100, ""),
        SimulatedRollout("Held", 9000.0, 7, 1, ""),
    ]
    result = Cell.of("ours", outcomes)
    assert (result.caught.count, result.caught.of, result.undecided) == (3, 5, 1)
    assert result.places == ((1, 1), (5, 2))
    assert (result.step, result.seconds, result.exposed) == (5, 120.0, 20.0)
    assert result.exposed_p90 == 28.0


def test_a_rule_that_catches_nothing_exposes_no_caught_rollout():
    result = Cell.of("ours", [SimulatedRollout("Promoted", 1.0, 5, 100, "")])
    assert (result.rate, result.step, result.exposed) == (0.0, None, None)


def test_as_many_are_caught_unless_surely_fewer():
    assert catches_as_many(cell("ours", 990), cell("it", 1000))
    assert catches_as_many(cell("ours", 990), cell("it", 985))
    assert not catches_as_many(cell("ours", 990), cell("it", 900))


def test_alpha_is_exceeded_when_the_lower_bound_is_above_it():
    rows = {"fine": [cell("ours", 60)], "bad": [cell("ours", 80)]}
    assert above_alpha(rows, 0.05) == ["bad"]


def test_false_rollbacks_are_compared_where_as_many_are_caught():
    equal = {"equal": [cell("ours", 20), cell("a", 5), cell("b", 300), cell("c", 0)]}
    faults = {"fault": [cell("ours", 1000, 10.0), *(cell(r, 1000, 50.0) for r in "ab")]}
    faults["fault"].append(cell("c", 100, 9.0))
    findings = false_rollbacks(equal, faults, PARTNERS)
    assert [(finding.rule, finding.holds) for finding in findings] == [("a", False), ("b", True)]
    assert "2.00%" in findings[0].text
    assert "intervals meet" not in findings[0].text


def test_exposures_need_ten_times_fewer():
    rivals = [cell("a", 1000, 99.0), cell("b", 1000, 100.0), cell("c", 10, 1.0)]
    findings = exposures(
        {"equal": [cell("ours", 20), cell("a", 900), cell("b", 0)]},
        {"fault": [cell("ours", 1000, 10.0), *rivals]},
        PARTNERS,
        0.05,
    )
    assert [(finding.rule, finding.holds) for finding in findings] == [("a", False), ("b", True)]
    assert "9.9 times" in findings[0].text
    assert [finding.keeps_alpha for finding in findings] == [False, True]


def test_the_summary_names_what_does_not_hold():
    equal = {"equal": [cell("ours", 90), cell("a", 5)]}
    faults = {
        "fault": [cell("ours", 1000, 10.0), cell("a", 1000, 40.0)],
        "ours alone": [cell("ours", 900, 10.0), cell("a", 0)],
    }
    lines = summary(equal, faults, {**PARTNERS, "ours alone": ["equal"]}, 0.05)
    text = "\n".join(lines)
    assert "in 0 of 1 rows" in lines[0]
    assert "above alpha: equal" in text
    assert "holds in 0 of 1 comparisons" in text
    assert "does not hold: fault, a: 10 against 40 requests, 4.0 times" in text
    assert lines[-1].endswith("than by any other: ours alone.")
