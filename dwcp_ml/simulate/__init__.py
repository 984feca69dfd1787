"""The telemetry simulator: a physical model of a wide-area consensus network.

`simulate` writes telemetry, incidents and ceilings to a directory; `generate` gives the same
telemetry in memory, with the hidden state behind it. `docs/simulator.md` explains the physics
and where the ranges come from.
"""

from dwcp_ml.simulate.generation import HiddenState, SimulatedTelemetry, generate
from dwcp_ml.simulate.output import SimulationResult, simulate
from dwcp_ml.simulate.settings import SimulatorSettings

__all__ = [
    "HiddenState",
    "SimulatedTelemetry",
    "SimulationResult",
    "SimulatorSettings",
    "generate",
    "simulate",
]
