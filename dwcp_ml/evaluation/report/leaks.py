"""The table of the leaks in the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dwcp_ml.contract.evaluation import Leak
from dwcp_ml.evaluation.report.tables import Table


def leaks(by_model: Mapping[str, Sequence[Leak]]) -> Table | None:
    """Return the leaks in the data of each model; None without any."""
    rows = [
        (
            name,
            str(leak.kind),
            leak.column,
            f"{leak.statistic:.3g}",
            f"{leak.limit:g}",
            "accepted" if leak.accepted else "rejects",
        )
        for name, found in by_model.items()
        for leak in found
    ]
    header = ("model", "leak", "in", "statistic", "limit", "")
    return Table(header, tuple(rows)) if rows else None
