"""The settings of the simulated network, with unit, range and default."""

from datetime import datetime
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

PUBLISHED_RATES: Final = {
    "latency_episodes_per_node_day": 4.0,
    "shared_slowdowns_per_region_day": 0.5,
    "latency_spikes_per_node_day": 6.0,
    "leader_transfers_per_node_day": 1.0,
    "route_changes_per_node_day": 0.2,
}
"""The defaults of the profile `published` of the consensus latency, where they are its own."""

PUBLISHED_ONLY: Final = tuple(
    name for name in PUBLISHED_RATES if name != "latency_episodes_per_node_day"
)
"""What the profile `steps` does not simulate: the rates are 0 there."""


def _published(what: str, name: str) -> str:
    return f"{what}; default with latency_episodes=published: {PUBLISHED_RATES[name]}"


class SimulatorSettings(BaseModel):
    """The simulator's settings. The same settings give the same bytes.

    The sources of the defaults are in `docs/simulator.md`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(42, ge=0, lt=2**63, description="seed of every random draw")

    # size
    start: datetime = Field(
        datetime(2025, 1, 6), description="UTC time of the first row (default: a Monday)"
    )
    days: float = Field(4.0, gt=0.1, le=400, description="length of the telemetry, days")
    cadence_seconds: int = Field(60, ge=10, le=600, description="time between two rows, seconds")
    nodes: int = Field(7, ge=3, le=200, description="nodes of the consensus group, count")
    peers_per_node: int = Field(2, ge=1, le=20, description="measured links a node, count")
    gaps_per_node_day: float = Field(
        0.5, ge=0, le=20, description="collector outages (missing rows), a node and day"
    )

    # network
    diurnal_amplitude: float = Field(
        1.5, ge=0, le=3, description="half the daily swing of ln(competing load), dimensionless"
    )
    cross_traffic_sd: float = Field(
        0.08, ge=0, le=1, description="change a minute of ln(competing load), standard deviation"
    )
    cross_traffic_minutes: float = Field(
        45.0, gt=1, le=1440, description="mean-reversion time of the cross traffic, minutes"
    )
    congestion_per_link_day: float = Field(
        3.0, ge=0, le=50, description="congestion episodes, a link and day"
    )
    adaptation_seconds: float = Field(
        25.0,
        ge=0,
        le=120,
        description="time constant with which flows take their share of a changed load, seconds",
    )
    throughput_noise: float = Field(
        0.0395,
        gt=0,
        le=0.5,
        description="relative standard deviation of a minute's throughput around the fair share",
    )
    gauge_noise: float = Field(
        1.0, gt=0, le=5, description="multiplies the noise of rtt, jitter, loss and window readings"
    )

    # compression
    payload_hours: float = Field(
        1.0, gt=0.05, le=48, description="time for which a link carries one payload class, hours"
    )
    codec_reference_mbps: float = Field(
        4000.0,
        gt=10,
        le=1e6,
        description="speed of zstd level 1 on log text, one core of a data-centre node, Mbit/s",
    )
    codec_cores: tuple[PositiveFloat, PositiveFloat, PositiveFloat, PositiveFloat] = Field(
        (4.0, 4.0, 0.3, 0.12),
        description="cores that a node gives to compressing for one link, by link type "
        "(dc, metro, wan, edge), count",
    )
    codec_noise: float = Field(
        0.004,
        gt=0,
        le=0.2,
        description="relative standard deviation of the ratio and transfer-rate counters",
    )

    # reliability
    incidents_per_node_day: float = Field(6.0, ge=0, le=50, description="incidents, a node and day")
    incident_severity: float = Field(
        1.0, gt=0.1, le=3, description="multiplies the strength of every incident's symptoms"
    )
    bursts_per_link_day: float = Field(
        2.5, ge=0, le=50, description="benign bursts that are not incidents, a link and day"
    )

    # consensus
    latency_episodes: Literal["steps", "published"] = Field(
        "steps",
        description="profile of the consensus latency; steps: each episode is one large step, and "
        "nothing else moves the latency; published: eight kinds of episodes after published "
        "accounts, and spikes, leader transfers and route changes that are no episode",
    )
    latency_episodes_per_node_day: float = Field(
        6.0,
        ge=0,
        le=50,
        description=_published(
            "high-latency episodes of one node beside failovers, a node and day",
            "latency_episodes_per_node_day",
        ),
    )
    shared_slowdowns_per_region_day: float = Field(
        0.0,
        ge=0,
        le=20,
        description=_published(
            "episodes in which all nodes of a region are slightly slow, a region and day",
            "shared_slowdowns_per_region_day",
        ),
    )
    latency_spikes_per_node_day: float = Field(
        0.0,
        ge=0,
        le=200,
        description=_published(
            "single high latency readings that are not an episode, a node and day",
            "latency_spikes_per_node_day",
        ),
    )
    leader_transfers_per_node_day: float = Field(
        0.0,
        ge=0,
        le=50,
        description=_published(
            "planned leader transfers, not an episode, a node and day",
            "leader_transfers_per_node_day",
        ),
    )
    route_changes_per_node_day: float = Field(
        0.0,
        ge=0,
        le=10,
        description=_published(
            "route changes that raise the usual latency for hours, a node and day",
            "route_changes_per_node_day",
        ),
    )
    latency_noise: float = Field(
        0.05, gt=0, le=0.5, description="relative standard deviation of a commit latency reading"
    )

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_profile(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("latency_episodes") == "published":
            return PUBLISHED_RATES | values
        return values

    @model_validator(mode="after")
    def _rates_of_the_profile(self) -> Self:
        if self.latency_episodes == "steps":
            for name in PUBLISHED_ONLY:
                if getattr(self, name):
                    raise ValueError(
                        f"{name} is a setting of the profile published: set "
                        "latency_episodes=published, or leave it at 0"
                    )
        return self

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return round(self.days * 86400 / self.cadence_seconds)

    @property
    def minutes(self) -> float:
        """Length of a step, minutes."""
        return self.cadence_seconds / 60
