"""The columns of the telemetry: the only definition, from which the others are generated.

One row is one observation of one link (``node_id`` to ``peer_id``) at one time.
``schema.py`` turns this table into ``dwcp_training_schema.json`` and into the table of
``docs/data-contract.md``; the validator and the simulator read it directly.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

COMPRESSION_LEVELS: Final = 10
"""Number of compression levels, 0 (none) to 9."""


class ColumnType(StrEnum):
    """How a column is read and checked."""

    TIMESTAMP = "timestamp"
    KEY = "key"
    CATEGORY = "category"
    FLOAT = "float"
    INTEGER = "integer"


@dataclass(frozen=True)
class Column:
    """One column of the contract.

    Parameters
    ----------
    name, kind, description
        The column in the file, how it is read, and what it means.
    unit
        Physical unit, empty where there is none.
    minimum, maximum
        Bounds of the values, in ``unit``; ``None`` is unbounded.
    exclusive_minimum
        True where ``minimum`` itself is out of range.
    codes
        For a category: each allowed word and the number that stands for it in a model.
    context
        True for a column that no model needs.
    """

    name: str
    kind: ColumnType
    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    codes: tuple[tuple[str, int], ...] = ()
    context: bool = False

    @property
    def categories(self) -> tuple[str, ...]:
        """The allowed words of a category, in the order of their codes."""
        return tuple(word for word, _ in self.codes)


def _category(name: str, description: str, words: str, first: int, context: bool) -> Column:
    codes = tuple((word, first + i) for i, word in enumerate(words.split()))
    return Column(name, ColumnType.CATEGORY, description, codes=codes, context=context)


def _floating(
    name: str,
    description: str,
    unit: str,
    minimum: float | None = 0.0,
    maximum: float | None = None,
    exclusive: bool = False,
) -> Column:
    return Column(name, ColumnType.FLOAT, description, unit, minimum, maximum, exclusive)


def _integer(
    name: str,
    description: str,
    unit: str,
    minimum: int = 0,
    maximum: int | None = None,
    context: bool = False,
) -> Column:
    return Column(name, ColumnType.INTEGER, description, unit, minimum, maximum, context=context)


_KEYS = (
    Column(
        "timestamp",
        ColumnType.TIMESTAMP,
        "time of the observation, ISO 8601 or epoch seconds",
        "UTC",
    ),
    Column("node_id", ColumnType.KEY, "the node that observed"),
    Column("peer_id", ColumnType.KEY, "the node at the other end of the link"),
)

_CONTEXT = (
    Column("region", ColumnType.KEY, "region of the node", context=True),
    Column("az", ColumnType.KEY, "availability zone of the node", context=True),
    Column("datacenter_id", ColumnType.KEY, "data centre of the node", context=True),
    _category("dwcp_mode", "mode of the protocol", "standard optimized resilient", 0, True),
    _category("transport_type", "transport below the protocol", "tcp udp quic", 0, True),
    _integer("bytes_tx", "bytes sent in the interval", "bytes", context=True),
    _integer("bytes_rx", "bytes received in the interval", "bytes", context=True),
    _integer("queue_depth", "packets in the queue of the link", "packets", context=True),
    _integer("amst_streams", "parallel streams of the transport", "count", 1, context=True),
)

_MEASURED = (
    _category("link_type", "kind of link", "dc metro wan edge", 0, False),
    _category("network_tier", "service tier of the network", "tier1 tier2 tier3", 1, False),
    _floating("rtt_ms", "round-trip time", "ms", 0.0, exclusive=True),
    _floating("jitter_ms", "variation of the round-trip time", "ms"),
    _floating("throughput_mbps", "throughput", "Mbit/s"),
    _floating("packet_loss", "lost share of the packets", "fraction", 0.0, 1.0),
    _integer("retransmits", "retransmitted packets in the interval", "count"),
    _integer("congestion_window", "congestion window of the sender", "bytes"),
    _floating("hde_compression_ratio", "original over compressed size", "ratio", 1.0),
    _floating("hde_delta_hit_rate", "share of delta dictionary hits", "fraction", 0.0, 1.0),
    _floating("amst_transfer_rate", "transfer rate over all streams", "Mbit/s"),
    _floating("error_budget_burn_rate", "budget fractions burnt in a window", "budget/window"),
    _floating("uptime_pct", "share of the time the node was up", "percent", 0.0, 100.0),
    _floating("failure_rate", "failures of the node", "failures/h"),
    _floating("consensus_latency_ms", "time to commit", "ms", 0.0, exclusive=True),
)

GAIN_COLUMNS: Final = tuple(f"throughput_gain_{level}" for level in range(COMPRESSION_LEVELS))
"""Measured throughput at each compression level over that at level 0, minus 1."""

_LABELS = (
    *(
        _floating(name, f"throughput at level {level} over level 0, minus 1", "ratio", -1.0)
        for level, name in enumerate(GAIN_COLUMNS)
    ),
    _integer("is_high_latency", "1 inside a labelled high-latency episode", "0/1", 0, 1),
)

COLUMNS: Final[dict[str, Column]] = {
    column.name: column for column in (*_KEYS, *_CONTEXT, *_MEASURED, *_LABELS)
}
"""Every column of the contract, by name."""

KEY_COLUMNS: Final = tuple(column.name for column in _KEYS)
"""``timestamp``, ``node_id``, ``peer_id``: what every file must hold."""

LABEL_COLUMNS: Final = tuple(column.name for column in _LABELS)
"""Optional columns with the labels; without them labels are derived, and reports say so."""


def column_of_feature(feature: str) -> Column:
    """Return the column that a model's feature is made of.

    >>> column_of_feature("link_type_encoded").name
    'link_type'
    """
    return COLUMNS[feature.removesuffix("_encoded")]


def is_feature(name: str) -> bool:
    """Return whether ``name`` can be a model's feature: a column, or the code of a category.

    >>> is_feature("rtt_ms"), is_feature("link_type_encoded"), is_feature("link_type")
    (True, True, False)
    """
    column = COLUMNS.get(name.removesuffix("_encoded"))
    if column is None or column.kind in (ColumnType.TIMESTAMP, ColumnType.KEY):
        return False
    return bool(column.codes) == name.endswith("_encoded")
