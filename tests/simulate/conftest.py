import pytest

from dwcp_ml.simulate import SimulatorSettings, generate


@pytest.fixture(scope="session")
def telemetry():
    """The default telemetry, simulated once."""
    return generate(SimulatorSettings())


@pytest.fixture(scope="session")
def published():
    """The default telemetry of the profile `published`, simulated once."""
    return generate(SimulatorSettings(latency_episodes="published"))


@pytest.fixture(scope="session")
def short():
    """Settings of a quick simulation: six hours of four nodes."""
    return SimulatorSettings(days=0.25, nodes=4)
