"""Results of the rollouts by rule, and whether two claims hold in each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_ml.rollout.simulation import Share, SimulatedRollout

TIMES_FEWER: Final = 10.0


@dataclass(frozen=True)
class Cell:
    """One rule in one simulated environment.

    Parameters
    ----------
    rule
        Its name.
    caught
        Share of rollouts that were rolled back.
    undecided
        Rollouts that were neither promoted nor rolled back within a day.
    places
        Highest share of traffic, percent -> how many were caught there.
    seconds
        Median time until the rollback.
    exposed, exposed_p90
        Requests of the candidate of a caught rollout.
    """

    rule: str
    caught: Share
    undecided: int = 0
    places: tuple[tuple[int, int], ...] = ()
    seconds: float | None = None
    exposed: float | None = None
    exposed_p90: float | None = None

    @classmethod
    def of(cls, rule: str, outcomes: list[SimulatedRollout]) -> Cell:
        """Return the cell of some outcomes."""
        caught = [rollout for rollout in outcomes if rollout.end == "RolledBack"]
        share = Share.of_counts(len(caught), len(outcomes))
        undecided = sum(rollout.end == "Held" for rollout in outcomes)
        if not caught:
            return cls(rule, share, undecided)
        percents = [rollout.percent for rollout in caught]
        places = tuple((percent, percents.count(percent)) for percent in sorted(set(percents)))
        exposed = [rollout.exposed_requests for rollout in caught]
        return cls(
            rule,
            share,
            undecided,
            places,
            float(np.median([rollout.seconds for rollout in caught])),
            float(np.median(exposed)),
            float(np.quantile(exposed, 0.9)),
        )

    @property
    def rate(self) -> float:
        """Share that was rolled back."""
        return self.caught.count / self.caught.of if self.caught.of else 0.0

    @property
    def step(self) -> int | None:
        """Median of the highest share of traffic among the caught, percent."""
        shares = [percent for percent, count in self.places for _ in range(count)]
        return shares[(len(shares) - 1) // 2] if shares else None

    @property
    def interval(self) -> str:
        """The share that was rolled back, with its interval."""
        share = self.caught
        return f"{self.rate:.2%} ({share.low:.2%} to {share.high:.2%})"


def catches_as_many(ours: Cell, other: Cell) -> bool:
    """Return whether another rule's share of caught faults is not certainly below ours."""
    return other.caught.high >= ours.caught.low


def above_alpha(equal: dict[str, list[Cell]], alpha: float) -> list[str]:
    """Return the rows where our share of false rollbacks is certainly above alpha."""
    return [row for row, cells in equal.items() if cells[0].caught.low > alpha]


@dataclass(frozen=True)
class Finding:
    """One comparison of ours with a rule that catches at least as many.

    Parameters
    ----------
    row, rule
        The fault, and the other rule.
    holds
        The claim is true in this comparison.
    text
        The figures.
    keeps_alpha
        The other rule does not certainly roll back more than alpha of the good candidates.
    """

    row: str
    rule: str
    holds: bool
    text: str
    keeps_alpha: bool = True


def false_rollbacks(
    equal: dict[str, list[Cell]], faults: dict[str, list[Cell]], partners: dict[str, list[str]]
) -> list[Finding]:
    """Compare the false rollbacks with every rule that catches as many of a fault.

    Parameters
    ----------
    equal, faults
        Row -> cells, ours first; a rule that is not in both is not compared.
    partners
        Fault's row -> the rows of the same base without a fault.
    """
    findings = []
    for row, (ours, *others) in faults.items():
        for other in others:
            if not catches_as_many(ours, other):
                continue
            for partner in partners[row]:
                own, *cells = equal[partner]
                for theirs in cells:
                    if theirs.rule == other.rule:
                        holds = own.rate <= theirs.rate
                        chance = not holds and own.caught.low <= theirs.caught.high
                        text = f"{partner}: {own.interval}, theirs {theirs.interval}"
                        text += "; the intervals meet" if chance else ""
                        findings.append(Finding(row, other.rule, holds, text))
    return findings


def exposures(
    equal: dict[str, list[Cell]],
    faults: dict[str, list[Cell]],
    partners: dict[str, list[str]],
    alpha: float,
) -> list[Finding]:
    """Compare the median of exposed requests with every rule that catches as many of a fault."""
    findings = []
    for row, (ours, *others) in faults.items():
        for other in others:
            if ours.exposed is None or other.exposed is None or not catches_as_many(ours, other):
                continue
            times = other.exposed / max(ours.exposed, 1.0)
            without = [
                cell for name in partners[row] for cell in equal[name] if cell.rule == other.rule
            ]
            highest = max(cell.rate for cell in without)
            text = (
                f"{ours.exposed:,.0f} against {other.exposed:,.0f} requests, {times:.1f} times; "
                f"{ours.rate:.1%} and {other.rate:.1%} are caught; "
                f"without a fault it rolls back up to {highest:.1%}"
            )
            keeps = all(cell.caught.low <= alpha for cell in without)
            findings.append(Finding(row, other.rule, times >= TIMES_FEWER, text, keeps))
    return findings


def summary(
    equal: dict[str, list[Cell]],
    faults: dict[str, list[Cell]],
    partners: dict[str, list[str]],
    alpha: float,
) -> list[str]:
    """Return the lines of the summary; every comparison that does not hold is listed."""
    wrong = above_alpha(equal, alpha)
    worst = max(equal.items(), key=lambda item: item[1][0].rate)
    lines = [
        f"- Rolled back without a fault: at most alpha = {alpha:.0%} in "
        f"{len(equal) - len(wrong)} of {len(equal)} rows; the highest is {worst[1][0].interval} at "
        f"{worst[0]}."
    ]
    lines += [f"  - above alpha: {row}" for row in wrong]
    fewer = exposures(equal, faults, partners, alpha)
    times = f"At least {TIMES_FEWER:g} times fewer exposed requests (median) than a rule that"
    claims = {
        "Never worse on false rollbacks than a rule that catches as many": false_rollbacks(
            equal, faults, partners
        ),
        f"{times} catches as many and keeps alpha, too": [
            finding for finding in fewer if finding.keeps_alpha
        ],
        f"{times} catches as many, and rolls back more than alpha without a fault": [
            finding for finding in fewer if not finding.keeps_alpha
        ],
    }
    for claim, findings in claims.items():
        good = sum(finding.holds for finding in findings)
        lines.append(f"- {claim}: holds in {good} of {len(findings)} comparisons.")
        lines += [
            f"  - does not hold: {finding.row}, {finding.rule}: {finding.text}."
            for finding in findings
            if not finding.holds
        ]
    only_ours = [
        row
        for row, (ours, *others) in faults.items()
        if ours.rate >= 0.5 and not any(catches_as_many(ours, other) for other in others)
    ]
    lines.append(f"- Caught by {faults_owner(faults)} more often than by any other: "
                 f"{'; '.join(only_ours) or 'none'}.")  # fmt: skip
    return lines


def faults_owner(faults: dict[str, list[Cell]]) -> str:
    """Return the name of the first rule."""
    return next(iter(faults.values()))[0].rule
