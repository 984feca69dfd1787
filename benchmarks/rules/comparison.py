"""What came of the rollouts, rule beside rule, and whether two claims hold, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dwcp_ml.rollout.simulation import Share, SimulatedRollout

TIMES_FEWER: Final = 10.0


@dataclass(frozen=True)
class Cell:
    """One rule in one world.

    Parameters
    ----------
    rule
        Its name.
    caught
        Share of rollouts that were taken back.
    held
        Rollouts that were neither promoted nor taken back in a day.
    places
        Highest share of traffic, percent -> how many were caught there.
    seconds
        Median time until they were.
    exposed, exposed_p90
        Requests that the candidate of a caught rollout answered.
    """

    rule: str
    caught: Share
    held: int = 0
    places: tuple[tuple[int, int], ...] = ()
    seconds: float | None = None
    exposed: float | None = None
    exposed_p90: float | None = None

    @classmethod
    def of(cls, rule: str, outcomes: list[SimulatedRollout]) -> Cell:
        """Return what the outcomes come to."""
        caught = [one for one in outcomes if one.end == "RolledBack"]
        share = Share.of_counts(len(caught), len(outcomes))
        held = sum(one.end == "Held" for one in outcomes)
        if not caught:
            return cls(rule, share, held)
        percents = [one.percent for one in caught]
        places = tuple((percent, percents.count(percent)) for percent in sorted(set(percents)))
        exposed = [one.exposed_requests for one in caught]
        return cls(
            rule,
            share,
            held,
            places,
            float(np.median([one.seconds for one in caught])),
            float(np.median(exposed)),
            float(np.quantile(exposed, 0.9)),
        )

    @property
    def rate(self) -> float:
        """Share that was taken back."""
        return self.caught.count / self.caught.of if self.caught.of else 0.0

    @property
    def step(self) -> int | None:
        """Median of the highest share of traffic among the caught, percent."""
        shares = [percent for percent, count in self.places for _ in range(count)]
        return shares[(len(shares) - 1) // 2] if shares else None

    @property
    def interval(self) -> str:
        """The share that was taken back with its interval."""
        share = self.caught
        return f"{self.rate:.2%} ({share.low:.2%} to {share.high:.2%})"


def catches_as_many(ours: Cell, rival: Cell) -> bool:
    """Return whether a rival's share of caught faults is not surely below ours."""
    return rival.caught.high >= ours.caught.low


def above_alpha(equal: dict[str, list[Cell]], alpha: float) -> list[str]:
    """Return the rows where our share of false rollbacks is surely above alpha."""
    return [row for row, cells in equal.items() if cells[0].caught.low > alpha]


@dataclass(frozen=True)
class Finding:
    """One comparison of ours with a rival that catches at least as many.

    Parameters
    ----------
    row, rival
        The fault, and whose rule.
    holds
        The claim is true here.
    text
        The figures.
    keeps_alpha
        The rival does not surely take back more than alpha of the candidates without a fault.
    """

    row: str
    rival: str
    holds: bool
    text: str
    keeps_alpha: bool = True


def false_rollbacks(
    equal: dict[str, list[Cell]], faults: dict[str, list[Cell]], partners: dict[str, list[str]]
) -> list[Finding]:
    """Compare the false rollbacks wherever a rival catches as many of a fault.

    Parameters
    ----------
    equal, faults
        Row -> cells, ours first; a rival that is not in both is not compared.
    partners
        Fault's row -> the rows of the same base without a fault.
    """
    found = []
    for row, (ours, *rivals) in faults.items():
        for rival in rivals:
            if not catches_as_many(ours, rival):
                continue
            for partner in partners[row]:
                mine, *others = equal[partner]
                for theirs in others:
                    if theirs.rule == rival.rule:
                        holds = mine.rate <= theirs.rate
                        chance = not holds and mine.caught.low <= theirs.caught.high
                        text = f"{partner}: {mine.interval}, theirs {theirs.interval}"
                        text += "; the intervals meet" if chance else ""
                        found.append(Finding(row, rival.rule, holds, text))
    return found


def exposures(
    equal: dict[str, list[Cell]],
    faults: dict[str, list[Cell]],
    partners: dict[str, list[str]],
    alpha: float,
) -> list[Finding]:
    """Compare the median of exposed requests wherever a rival catches as many of a fault."""
    found = []
    for row, (ours, *rivals) in faults.items():
        for rival in rivals:
            if ours.exposed is None or rival.exposed is None or not catches_as_many(ours, rival):
                continue
            times = rival.exposed / max(ours.exposed, 1.0)
            without = [
                cell for name in partners[row] for cell in equal[name] if cell.rule == rival.rule
            ]
            most = max(cell.rate for cell in without)
            text = (
                f"{ours.exposed:,.0f} against {rival.exposed:,.0f} requests, {times:.1f} times; "
                f"{ours.rate:.1%} and {rival.rate:.1%} are caught; "
                f"without a fault it takes back up to {most:.1%}"
            )
            keeps = all(cell.caught.low <= alpha for cell in without)
            found.append(Finding(row, rival.rule, times >= TIMES_FEWER, text, keeps))
    return found


def summary(
    equal: dict[str, list[Cell]],
    faults: dict[str, list[Cell]],
    partners: dict[str, list[str]],
    alpha: float,
) -> list[str]:
    """Return the lines of the summary; whatever does not hold is named."""
    wrong = above_alpha(equal, alpha)
    worst = max(equal.items(), key=lambda item: item[1][0].rate)
    lines = [
        f"- Taken back without a fault: no more than alpha = {alpha:.0%} in "
        f"{len(equal) - len(wrong)} of {len(equal)} rows; the most is {worst[1][0].interval} at "
        f"{worst[0]}."
    ]
    lines += [f"  - above alpha: {row}" for row in wrong]
    fewer = exposures(equal, faults, partners, alpha)
    times = f"At least {TIMES_FEWER:g} times fewer exposed requests (median) than a rule that"
    claims = {
        "Never worse on false rollbacks than a rule that catches as many": false_rollbacks(
            equal, faults, partners
        ),
        f"{times} catches as many and keeps alpha, too": [one for one in fewer if one.keeps_alpha],
        f"{times} catches as many, and takes back more than alpha without a fault": [
            one for one in fewer if not one.keeps_alpha
        ],
    }
    for claim, findings in claims.items():
        good = sum(one.holds for one in findings)
        lines.append(f"- {claim}: holds in {good} of {len(findings)} comparisons.")
        lines += [
            f"  - does not hold: {one.row}, {one.rival}: {one.text}."
            for one in findings
            if not one.holds
        ]
    alone = [
        row
        for row, (ours, *rivals) in faults.items()
        if ours.rate >= 0.5 and not any(catches_as_many(ours, rival) for rival in rivals)
    ]
    lines.append(f"- Caught by {faults_owner(faults)} more often than by any other: "
                 f"{'; '.join(alone) or 'none'}.")  # fmt: skip
    return lines


def faults_owner(faults: dict[str, list[Cell]]) -> str:
    """Return the name of the first rule."""
    return next(iter(faults.values()))[0].rule
