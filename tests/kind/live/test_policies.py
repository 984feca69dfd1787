"""The network policies of ``manifests/base``, with something on the cluster that enforces them."""

import json

import pytest

from tests.cluster.processes import eventually
from tests.kind.live.cluster import SPACE
from tests.kind.live.load import HOST
from tests.kind.live.pods import asked

pytestmark = [pytest.mark.kind, pytest.mark.timeout(600)]

_TRIES = '''
import json, socket, time, urllib.request
def settled(look):
    """What is seen once the policies hold for this pod: a moment after it was started."""
    ends = time.monotonic() + 30
    while any((found := look()).values()) and time.monotonic() < ends:
        time.sleep(1)
    return found
def reached(host, port):
    try:
        socket.create_connection((host, port), 4).close()
    except OSError:
        return False
    return True
def known(name):
    try:
        return bool(socket.getaddrinfo(name, 80))
    except OSError:
        return False
def ready(host, virtual):
    request = urllib.request.Request(f"http://{host}/v2/health/ready", headers={"Host": virtual})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.status
'''


@pytest.fixture
def addresses(node, rollouts):
    """Where the server, the gateway and the API server are."""

    def of_service(selector, namespace):
        path = f"/api/v1/namespaces/{namespace}/services?labelSelector={selector}"
        return node.rest.get(path)["items"][0]["spec"]["clusterIP"]

    def of_server():
        pods = node.pods(f"app=isvc.{rollouts.stable()}")
        return [one["status"]["podIP"] for one in pods if "podIP" in one["status"]]

    return {
        "server": eventually(of_server, 60.0)[0],
        "gateway": of_service(
            "gateway.envoyproxy.io/owning-gateway-name%3Dkserve-ingress-gateway",
            "envoy-gateway-system",
        ),
        "api": of_service("provider%3Dkubernetes", "default"),
    }


def _told(program, addresses):
    return f"{_TRIES}\nat = {json.dumps(addresses)}\nprint(json.dumps({program}))"


def test_a_stranger_reaches_a_model_through_the_gateway_only(node, addresses):
    program = _told(
        "{'server': reached(at['server'], 8080), 'requests': reached(at['server'], 8082),"
        " 'ready': ready(at['gateway'], at['host']),"
        " 'api': reached(at['api'], 443), 'dns': known('kubernetes.default.svc')}",
        {**addresses, "host": HOST},
    )
    with node.namespace("stranger") as space:
        found = asked(node, space, program)
    # Its own network is whole, or it would prove nothing that the server is out of its reach.
    assert found == {
        "server": False, "requests": False, "ready": 200, "api": True, "dns": True,
    }  # fmt: skip


def test_a_pod_of_the_namespace_that_no_policy_names_reaches_nothing(node, addresses):
    program = _told(
        "settled(lambda: {'server': reached(at['server'], 8080),"
        " 'requests': reached(at['server'], 8082),"
        " 'gateway': reached(at['gateway'], 80), 'dns': known('kubernetes.default.svc')})",
        addresses,
    )
    found = asked(node, SPACE, program)
    # Not asked: the API server. It is on the node itself, which kube-router lets every pod reach.
    assert found == {"server": False, "requests": False, "gateway": False, "dns": False}


def test_a_server_opens_no_connection_but_for_names_and_https(node, addresses, rollouts):
    program = _told(
        "{'gateway': reached(at['gateway'], 80), 'dns': known('kubernetes.default.svc')}", addresses
    )
    said = node.kubectl(
        "exec", "-n", SPACE, f"deployment/{rollouts.stable()}", "--", "python3", "-c", program
    )
    assert json.loads(said.splitlines()[-1]) == {"gateway": False, "dns": True}
