"""The locations of the nodes and the properties of their links."""

from dataclasses import dataclass, fields, replace

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate.settings import SimulatorSettings

LINK_TYPES = ("dc", "metro", "wan", "edge")
REGIONS = ("eu-west", "us-east", "ap-south")
DC, METRO, WAN, EDGE = range(4)
_GROUP = 4  # nodes a region group: two in one data centre, one in a second, one at the edge

# ranges by link type (dc, metro, wan, edge); sources in docs/simulator.md
CAPACITY_MBPS = ((600, 900), (300, 600), (120, 300), (40, 120))
PROPAGATION_MS = ((0.3, 0.7), (2.0, 6.0), (35.0, 75.0), (10.0, 25.0))
QUEUE_UNIT_MS = (0.15, 1.0, 4.0, 4.0)  # queueing delay at 50 % utilisation
MEDIUM_LOSS = (1e-6, 1e-5, 2e-5, 2e-4)
STREAMS = (1, 2, 6, 2)  # the transport is configured by link type


@dataclass(frozen=True)
class Topology:
    """Nodes (N) and measured links (L); every link belongs to the node that measures it.

    Attributes
    ----------
    node_region, node_site : int arrays of shape (N,)
        Region of a node, and its data centre (unique over all regions).
    node, peer, link_type, streams : int arrays of shape (L,)
    capacity_mbps, propagation_ms, queue_unit_ms, medium_loss, peak_hour : float arrays, (L,)
    """

    node_region: Ints
    node_site: Ints
    node: Ints
    peer: Ints
    link_type: Ints
    streams: Ints
    capacity_mbps: Floats
    propagation_ms: Floats
    queue_unit_ms: Floats
    medium_loss: Floats
    peak_hour: Floats

    @property
    def nodes(self) -> int:
        """Number of nodes, N."""
        return len(self.node_region)

    @property
    def links(self) -> int:
        """Number of links, L."""
        return len(self.node)

    def of_links(self, link: Ints) -> "Topology":
        """Return the same nodes with other links: link k is link `link[k]` of this topology."""
        names = [field.name for field in fields(self) if not field.name.startswith("node_")]
        return replace(self, **{name: getattr(self, name)[link] for name in names})


def link_type_between(regions: Ints, sites: Ints, a: int, b: int) -> int:
    """Link type between two nodes: it follows from the regions and sites of all nodes."""
    if (sites[[a, b]] % 3 == 2).any():  # the third site of a group
        return EDGE
    if sites[a] == sites[b]:
        return DC
    return METRO if regions[a] == regions[b] else WAN


def build_topology(settings: SimulatorSettings, rng: np.random.Generator) -> Topology:
    """Place the nodes, choose each node's peers so that link types mix, draw link constants."""
    index = np.arange(settings.nodes)
    group = index // _GROUP
    regions = group % len(REGIONS)
    sites = 3 * group + np.array([0, 0, 1, 2])[index % _GROUP]
    node: list[int] = []
    peer: list[int] = []
    kind: list[int] = []
    for i in range(settings.nodes):
        others = [(i + step) % settings.nodes for step in range(1, settings.nodes)]
        for slot in range(min(settings.peers_per_node, len(others))):
            target_type = (i + 2 * slot + i // _GROUP) % len(LINK_TYPES)
            others.sort(
                key=lambda j, i=i, w=target_type: (  # type: ignore[misc]
                    (link_type_between(regions, sites, i, j) - w) % len(LINK_TYPES),
                    (j - i) % settings.nodes,
                )
            )
            j = others.pop(0)
            node.append(i)
            peer.append(j)
            kind.append(link_type_between(regions, sites, i, j))
    link_type = np.array(kind)
    capacity = np.array(CAPACITY_MBPS, float)[link_type]
    propagation = np.array(PROPAGATION_MS)[link_type]
    links = len(node)
    node_array = np.array(node)
    return Topology(
        node_region=regions,
        node_site=sites,
        node=node_array,
        peer=np.array(peer),
        link_type=link_type,
        streams=np.array(STREAMS)[link_type],
        capacity_mbps=rng.uniform(capacity[:, 0], capacity[:, 1]),
        propagation_ms=rng.uniform(propagation[:, 0], propagation[:, 1]),
        queue_unit_ms=np.array(QUEUE_UNIT_MS)[link_type] * rng.uniform(0.8, 1.25, links),
        medium_loss=np.array(MEDIUM_LOSS)[link_type] * rng.uniform(0.5, 2.0, links),
        # the evening peak of each region, in UTC
        peak_hour=(np.array([19.0, 0.0, 14.0])[regions[node_array]] + rng.normal(0, 1.0, links)),
    )
