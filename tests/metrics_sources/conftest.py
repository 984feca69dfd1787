"""A real Prometheus for the tests."""

import pytest

from tests.debian import debian_program


@pytest.fixture(scope="session")
def prometheus_binary():
    return debian_program("prometheus", "prometheus")
