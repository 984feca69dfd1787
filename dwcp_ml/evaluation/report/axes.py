"""Elements that several plots share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dwcp_ml.contract.arrays import Array, Mask

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


def outline(
    axes: Axes,
    values: Array,
    bins: Array,
    colour: str,
    name: str,
    dashes: str,
    *,
    fill: bool = False,
) -> None:
    """Draw a histogram as shares of all values; larger and smaller values are in the last bins."""
    counts, _ = np.histogram(np.clip(values, bins[0], bins[-1]), bins)
    shares = counts / max(len(values), 1)
    axes.stairs(shares, bins, color=colour, linestyle=dashes, linewidth=1.6, label=name)
    if fill:
        axes.stairs(shares, bins, color=colour, alpha=0.2, fill=True, linewidth=0)


def exceedance(axes: Axes, values: Array, colour: str, name: str, dashes: Any) -> None:
    """Draw the share of larger values, at 300 points at most."""
    ordered = np.sort(values[values > 1e-6])
    if not len(ordered):
        axes.plot([], [], color=colour, linestyle=dashes, label=f"{name} (none)")
        return
    share = np.arange(len(ordered), 0, -1) / len(values)
    shown = np.unique(np.linspace(0, len(ordered) - 1, 300).astype(int))
    axes.plot(ordered[shown], share[shown], color=colour, linestyle=dashes, label=name)


def times(seconds: Array) -> Array:
    """Return epoch seconds as datetimes."""
    return np.rint(1000.0 * seconds).astype("datetime64[ms]")


def with_gaps(times: Array) -> Callable[[Array], tuple[Any, Any]]:
    """Return a function that breaks a line at gaps in time."""
    steps = np.diff(times).astype(np.float64)
    usual = float(np.median(steps)) if len(steps) else 0.0
    breaks = np.flatnonzero(steps > 1.5 * usual) + 1

    def broken(values: Array) -> tuple[Any, Any]:
        nowhere = np.full(len(breaks), np.nan)
        return np.insert(times, breaks, times[breaks - 1]), np.insert(
            values.astype(np.float64), breaks, nowhere
        )

    return broken


def runs(inside: Mask) -> list[tuple[int, int]]:
    """Return first and last position of each run of true values."""
    edges = np.diff(np.concatenate([[0], inside.astype(np.int8), [0]]))
    pairs = zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1, strict=True)
    return [(int(start), int(end)) for start, end in pairs]


def most_changes(truth: Mask, length: int) -> slice:
    """Return the ``length`` rows with the most changes between normal and high latency."""
    if len(truth) <= length:
        return slice(0, len(truth))
    changes = np.abs(np.diff(truth.astype(np.int8), prepend=truth[:1]))
    sums = np.convolve(changes, np.ones(length), "valid")
    start = int(np.argmax(sums))
    return slice(start, start + length)


def time_axis(axes: Axes) -> None:
    """Label the horizontal axis with few, short dates and hours."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator: Any = AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter: Any = ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlabel("UTC")


def plain_decade(axis: Axis, *, between: bool = False) -> None:
    """Label one logarithmic axis with plain numbers, ``between`` the decades as well."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if between else (1.0,), numticks=9))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Axes) -> None:
    """Put the legend above the axes."""
    names = axes.get_legend_handles_labels()[1]
    # A row that is wider than the figure would squeeze the axes.
    columns = 4 if sum(map(len, names)) + 5 * len(names) < 45 else 2
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns, borderaxespad=0.2)
