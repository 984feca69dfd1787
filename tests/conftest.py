"""Telemetry for every test that needs some: a small network, simulated once a session."""

import io
import json
import os
import sys

# Two processes share the cores already: threads of their own only wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pandas as pd
import pytest
from hypothesis import settings

from tests.matrix import examples

# No test's outcome hangs on seconds.
settings.register_profile("project", deadline=None, max_examples=examples(100))
settings.load_profile("project")


@pytest.fixture
def failures(monkeypatch):
    """The errors that commands run by ``dwcp_ml.cli.main`` end with, the newest last."""
    from dwcp_ml import cli

    errors, fail = [], cli._fail

    def record(*arguments):
        errors.append(sys.exc_info()[1])
        return fail(*arguments)

    monkeypatch.setattr(cli, "_fail", record)
    return errors


@pytest.fixture(scope="session")
def small_telemetry():
    """A quarter of a day of four nodes: (frame, list of incidents)."""
    from dwcp_ml.simulate import SimulatorSettings, generate
    from dwcp_ml.simulate.output import incident_records

    telemetry = generate(SimulatorSettings(days=0.25, nodes=4))
    return telemetry.frame, incident_records(telemetry)


@pytest.fixture(scope="session")
def small_content(small_telemetry):
    """The same as the content of two files."""
    frame, incidents = small_telemetry
    return frame.to_csv(index=False), json.dumps(incidents)


@pytest.fixture
def files(tmp_path, small_content):
    """The same as files: (telemetry.csv, incidents.json) in a directory of the test's own."""
    paths = tmp_path / "telemetry.csv", tmp_path / "incidents.json"
    for path, content in zip(paths, small_content, strict=True):
        path.write_text(content)
    return paths


@pytest.fixture(scope="session")
def small_frame(small_content):
    """What pandas reads of the telemetry file."""
    return pd.read_csv(io.StringIO(small_content[0]))


@pytest.fixture
def edit(files, small_frame):
    """Write the telemetry file changed: ``edit(lambda frame: ...)``; returns its path."""

    def change(function):
        frame = small_frame.copy()
        changed = function(frame)
        (frame if changed is None else changed).to_csv(files[0], index=False)
        return files[0]

    return change


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Set TensorFlow up as a trainer does, before whichever test of a process is the first."""
    if item.get_closest_marker("train"):
        from dwcp_ml.models.runtime import start

        start(1)


@pytest.fixture(scope="session")
def s3_endpoint():
    """The address of a fake of S3."""
    from tests import fake_s3

    with fake_s3.running() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """An empty bucket of it; the environment names the endpoint and the keys, as a pod's does."""
    from tests import fake_s3

    for name, value in fake_s3.environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return fake_s3.Bucket(s3_endpoint)
