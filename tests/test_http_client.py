"""The one HTTP client: deadlines, sizes, connections, proxies, TLS."""

import contextlib
import http.server
import json
import socket
import socketserver
import ssl
import struct
import threading
import time

import pytest

from dwcp_ml.contract.errors import ErrorCode
from dwcp_ml.http_client import HttpError, HttpSession, NoResponse, Tls, get, proxy_of, request
from dwcp_ml.kubeflow.client import KubeflowApi
from tests.errors import about
from tests.fake_proxy import FakeProxy
from tests.metrics_sources.fakes import FakeServer

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxy_variables(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextlib.contextmanager
def raw_server(serve):
    """A server that calls ``serve(stream, ended)`` for one connection; yields its address."""
    ended = threading.Event()

    def accept(listening):
        stream, _ = listening.accept()
        with stream, contextlib.suppress(OSError):
            serve(stream, ended)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            ended.set()
            thread.join(10.0)


@pytest.mark.server
@pytest.mark.parametrize(
    "start", [b"H", b"HTTP/1.1 200 X\r\n", b"HTTP/1.1 200 X\r\ncontent-length: 99999\r\n\r\n"]
)
def test_a_server_that_sends_a_byte_now_and_then_is_cut_off(start):
    def drip(stream, ended):
        stream.sendall(start)
        while not ended.wait(0.05):
            stream.sendall(b"x")

    with raw_server(drip) as address:
        started = time.monotonic()
        with pytest.raises(NoResponse) as caught:
            get(address, 0.3)
        assert caught.value.reason == "not within 0.3 s"
        assert time.monotonic() - started < 8.0  # it drips for ever


@pytest.mark.server
def test_a_connection_is_used_again_with_the_whole_timeout():
    """A response that takes most of its time leaves nothing of that to the next request."""

    def serve(stream, ended):
        for seconds in (0.6, 0.0):
            while b"\r\n\r\n" not in stream.recv(65_536):
                pass
            ended.wait(seconds)
            stream.sendall(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n")
            ended.wait(seconds)
            stream.sendall(b"ok")
        ended.wait(10.0)

    with raw_server(serve) as address, HttpSession() as session:
        for _ in range(2):
            assert session.request("GET", address, 5.0).body == b"ok"
        (pool,) = session._adapter.poolmanager.pools._container.values()
        connection = pool._get_conn()
        assert connection.sock.gettimeout() > 3.0
        connection.close()


@pytest.mark.server
def test_connections_are_shared():
    with FakeServer((200, b"{}")) as server, HttpSession() as session:
        for _ in range(5):
            session.request("POST", f"http://{server.address}/x", 5.0, body=b"{}")
        assert server.connections == 1
        first, headers, body = server.seen[-1]
        assert (first, body) == ("POST /x HTTP/1.1", b"{}")
        assert headers["accept-encoding"] == "identity"
        request("GET", f"http://{server.address}/x", 5.0)
        assert server.connections == 2


@pytest.mark.server
@pytest.mark.parametrize(("method", "sent"), [("GET", 3), ("POST", 2)])
def test_a_kept_connection_that_the_server_closes_as_it_is_used_again(method, sent):
    """Only a GET may be sent twice: whether the server acted on another request is unknown."""
    requests = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            for number in range(2):
                while b"\r\n\r\n" not in (received := self.request.recv(65_536)):
                    if not received:
                        return
                requests.append(received)
                if number:  # a reset, with the request unread by the application
                    self.request.setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                    )
                    return
                self.request.sendall(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nok")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        with HttpSession() as session:
            assert session.request(method, url, 5.0).body == b"ok"
            if method == "GET":
                assert session.request(method, url, 5.0).body == b"ok"
            else:
                with pytest.raises(NoResponse):
                    session.request(method, url, 5.0)
        server.shutdown()
    assert len(requests) == sent


@pytest.mark.server
def test_a_redirect_is_returned_not_followed():
    elsewhere = b"HTTP/1.1 302 X\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n"
    with FakeServer((0, elsewhere)) as server:
        response = request("GET", f"http://{server.address}/", 5.0, headers={"Authorization": "t"})
        assert (response.status, response.headers["location"]) == (302, "http://127.0.0.1:9/")


@pytest.mark.server
def test_cookies_and_netrc_are_not_used(tmp_path, monkeypatch):
    cookie = b"HTTP/1.1 200 X\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FakeServer((0, cookie)) as server, HttpSession() as session:
        for _ in range(2):
            session.request("GET", f"http://{server.address}/", 5.0)
        assert not {"cookie", "authorization"} & set(server.seen[-1][1])


@pytest.mark.server
def test_a_body_has_a_largest_size():
    with FakeServer((200, b"x" * 1000)) as server:
        address = f"http://{server.address}/"
        assert get(address, 5.0, max_bytes=1000) == b"x" * 1000
        with pytest.raises(HttpError, check=about(ErrorCode.TOO_LARGE, "999")):
            get(address, 5.0, max_bytes=999)


@pytest.mark.parametrize(
    "url", ["ftp://a:1", "http://", "http://a:99999", "a:1", "a", "http://me:secret@"]
)
def test_an_address_must_be_one(url):
    with pytest.raises(HttpError, check=about(ErrorCode.INVALID_ADDRESS)) as caught:
        get(url, 1.0)
    assert "secret" not in str(caught.value)


def test_a_refused_connection_is_named_without_the_password():
    with pytest.raises(NoResponse) as caught:
        get("http://me:secret@127.0.0.1:9/x?token=y", 1.0)
    assert str(caught.value) == "http://127.0.0.1:9/x gave no response: connection refused."


@pytest.mark.server
def test_a_unix_socket_ignores_proxies(tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.path)))
            self.end_headers()
            self.wfile.write(self.path.encode())

        def address_string(self):
            return ""

        def log_message(self, *words):
            pass

    path = tmp_path / "admin.sock"
    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        assert get("http://envoy/stats?format=json", 5.0, unix_socket=path) == b"/stats?format=json"
        server.shutdown()
    path.unlink()
    with pytest.raises(NoResponse, match="no such file or directory"):
        get("http://envoy/", 1.0, unix_socket=path)


PROXY, OTHER = "http://proxy:3128", "http://other:3128"


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("https://a.example/x", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://a.example/x", {"https_proxy": PROXY, "HTTPS_PROXY": OTHER}, PROXY),
        ("http://a.example/x", {"HTTPS_PROXY": PROXY}, None),
        ("http://a.example/x", {"HTTP_PROXY": PROXY, "ALL_PROXY": OTHER}, PROXY),
        ("http://a.example/x", {"ALL_PROXY": PROXY}, PROXY),
        ("https://localhost:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://127.0.0.1:6443", {"HTTPS_PROXY": PROXY}, None),
        ("https://[::1]:6443", {"HTTPS_PROXY": PROXY}, None),
    ],
)
def test_the_environment_names_the_proxy(monkeypatch, url, variables, proxy):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == proxy


@pytest.mark.parametrize(
    ("no_proxy", "host", "direct"),
    [
        ("*", "a.example", True),
        ("example", "a.example", True),
        ("b.example, a.example", "a.example", True),
        (".example", "a.example", True),
        ("*.example", "a.example", True),
        ("a.example", "A.Example", True),
        ("a.example.", "a.example.", True),
        ("a.example:443", "a.example", True),
        ("a.example:80", "a.example", False),
        ("ample", "a.example", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.0.0.0/8", "a.example", False),
        ("fd00::/8", "[fd00::1]", True),
        ("", "a.example", False),
    ],
)
def test_no_proxy_names_hosts_networks_and_ports(monkeypatch, no_proxy, host, direct):
    monkeypatch.setenv("HTTPS_PROXY", PROXY)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_of(f"https://{host}/x") == (None if direct else PROXY)


@pytest.fixture
def tls_server(tmp_path):
    """A server behind TLS that answers everything with one run: (port, its authority)."""
    from tests.cluster.certificates import Authority

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            content = json.dumps({"runs": [{"run_id": "r1"}]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    authority = Authority(tmp_path)
    pair = authority.server("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.load_verify_locations(authority.certificate)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.context = context
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server, authority
    server.shutdown()
    server.server_close()


@pytest.mark.server
def test_kubeflow_is_reached_through_the_proxy(tls_server, monkeypatch):
    """Row 12: HTTPS_PROXY was ignored. The name of the host is only known to the proxy."""
    server, authority = tls_server
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with FakeProxy(server.server_address) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address.replace("//", "//me:secret@"))
        assert KubeflowApi("https://kubernetes.default.svc").find("n", "") == "r1"
        (head,) = proxy.heads
        assert head.startswith("CONNECT kubernetes.default.svc:443 ")
        assert "Proxy-Authorization: Basic bWU6c2VjcmV0" in head
        monkeypatch.setenv("NO_PROXY", ".svc")
        with pytest.raises(HttpError, check=about(ErrorCode.NO_RESPONSE)):
            get("https://kubernetes.default.svc/", 5.0)
        assert len(proxy.heads) == 1


@pytest.mark.server
@pytest.mark.slow  # the import of kubernetes
def test_the_api_server_is_reached_through_the_proxy(tls_server, monkeypatch):
    import kubernetes

    from dwcp_ml.kube.api import LEASE
    from dwcp_ml.kube.client import KubeApi

    server, authority = tls_server
    configuration = kubernetes.client.Configuration(host="https://kubernetes.default.svc")
    configuration.ssl_ca_cert = str(authority.certificate)
    with FakeProxy(server.server_address) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        api = KubeApi(kubernetes.client.ApiClient(configuration))
        assert api.get(LEASE, "models", "a") == {"runs": [{"run_id": "r1"}]}
        assert proxy.heads[0].startswith("CONNECT kubernetes.default.svc:443")


@pytest.mark.server
def test_plain_http_goes_through_the_proxy_as_a_whole_url(monkeypatch):
    with FakeServer((200, b"ok")) as server, FakeProxy(("127.0.0.1", server.port)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.address)
        assert get("http://prometheus.example:9090/x?y=1", 5.0) == b"ok"
        assert proxy.heads[0].startswith("GET http://prometheus.example:9090/x?y=1 HTTP/1.1\r\n")


@pytest.mark.server
def test_certificates_are_checked_in_both_directions(tls_server):
    server, authority = tls_server
    url = f"https://127.0.0.1:{server.server_port}/"
    ca, client = str(authority.certificate), authority.client("me")
    pair = (str(client.certificate), str(client.key))

    def status(tls):
        with HttpSession(tls=tls) as session:
            return session.request("GET", url, 5.0).status

    assert status(Tls(ca_file=ca)) == 200
    assert status(Tls(ca_file=ca, server_name="kubernetes")) == 200
    for tls in (Tls(), Tls(ca_file=ca, server_name="other")):
        with pytest.raises(NoResponse, match="certificate verify failed"):
            status(tls)
    server.context.verify_mode = ssl.CERT_REQUIRED
    assert status(Tls(ca_file=ca, client_cert=pair)) == 200
    with pytest.raises(NoResponse):
        status(Tls(ca_file=ca))
