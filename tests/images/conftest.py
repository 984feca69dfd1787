"""The three images; without an engine or without them, the tests fail with one sentence."""

import pytest

from dwcp_ml import __version__
from tests.images.engine import ENGINE, Image, engine


@pytest.fixture(scope="session")
def images():
    """Name -> image."""
    try:
        is_running = engine("info").returncode == 0
    except OSError:
        is_running = False
    if not is_running:
        pytest.fail(f"{ENGINE} does not respond: start it, or set ENGINE=podman.", pytrace=False)
    images = {}
    for name in ("trainer", "server", "operator"):
        tag = f"dwcp-ml-{name}:{__version__}"
        if engine("image", "inspect", tag).returncode != 0:
            pytest.fail(f"There is no image {tag}: run `make images`.", pytrace=False)
        images[name] = Image(name, tag)
    return images


@pytest.fixture(params=["trainer", "server", "operator"])
def image(request, images):
    return images[request.param]


@pytest.fixture
def server(images):
    return images["server"]


@pytest.fixture
def operator(images):
    return images["operator"]


@pytest.fixture(scope="session")
def trainer(images):
    return images["trainer"]
