"""The server against its own description: every operation, with good and with bad requests.

Schemathesis makes the requests from /openapi.json: those that conform must succeed, those that
don't must be rejected, each with a status and a body that the description has.
"""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.generation import GenerationMode

from tests.serving.bundles import MODELS, VERSION
from tests.serving.running import TIMEOUT_SECONDS

pytestmark = [pytest.mark.server, pytest.mark.slow]

BOUNDED = settings(
    max_examples=15,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def described(server):
    status, headers, content = server.request("GET", "/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return json.loads(content)


@pytest.fixture(scope="module")
def operations(described):
    schema = schemathesis.openapi.from_dict(described)
    return {
        (operation.method.upper(), operation.path): operation
        for operation in (result.ok() for result in schema.get_all_operations())
    }


def test_every_path_is_described(described):
    expected = {"/v1/models", "/v2", "/v2/health/live", "/v2/health/ready", "/metrics"}
    for name in MODELS:
        expected |= {
            f"/v1/models/{name}", f"/v1/models/{name}:predict", f"/v1/models/{name}:feedback",
            f"/v1/models/{name}/versions/{VERSION}:predict", f"/v2/models/{name}",
            f"/v2/models/{name}/ready", f"/v2/models/{name}/infer",
            f"/v2/models/{name}/versions/{VERSION}/infer",
        }  # fmt: skip
    assert set(described["paths"]) == expected


def check(server, operations, mode, allowed):
    """Send requests made in a mode to every operation; return the statuses that came."""
    before = server.log()
    statuses = set()
    for operation in operations:
        statuses |= check_one(server, operation, mode, allowed)
    assert server.log() == before, "nothing was worth a line"
    return statuses


def check_one(server, operation, mode, allowed):
    statuses = set()

    @seed(42)
    @BOUNDED
    @given(operation.as_strategy(generation_mode=mode))
    def send(case):
        received = case.call(
            base_url=f"http://127.0.0.1:{server.http_port}", timeout=TIMEOUT_SECONDS
        )
        assert received.status_code in allowed, (case.body, received.content)
        assert str(received.status_code) in operation.definition.raw["responses"]
        assert received.headers["x-request-id"]
        operation.validate_response(received)
        statuses.add(received.status_code)

    send()
    return statuses


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_conforms_is_answered(server, operations, method):
    chosen = [operation for key, operation in operations.items() if key[0] == method]
    assert check(server, chosen, GenerationMode.POSITIVE, {200}) == {200}


def test_what_does_not_conform_is_refused(server, operations):
    chosen = [operation for key, operation in operations.items() if key[0] == "POST"]
    # A wrong request id is replaced, an additional key of V2 is ignored: some succeed.
    assert check(server, chosen, GenerationMode.NEGATIVE, {200, 400, 413}) >= {400}
