"""The three images; without an engine or without them, one sentence."""

import pytest

from dwcp_ml import __version__
from tests.images.engine import ENGINE, Image, engine


@pytest.fixture(scope="session")
def images():
    """Name -> image."""
    try:
        answers = engine("info").returncode == 0
    except OSError:
        answers = False
    if not answers:
        pytest.fail(f"{ENGINE} does not answer: start it, or say ENGINE=podman.", pytrace=False)
    found = {}
    for name in ("trainer", "server", "operator"):
        tag = f"dwcp-ml-{name}:{__version__}"
        if engine("image", "inspect", tag).returncode != 0:
            pytest.fail(f"there is no image {tag}: run `make images`.", pytrace=False)
        found[name] = Image(name, tag)
    return found


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
