"""Reading and writing objects: a fake of S3, and a web server with faults."""

import base64
import contextlib
import http.server
import inspect
import itertools
import threading
import time

import pytest

from dwcp_ml.cli import main
from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import model_specs
from dwcp_ml.storage.fetch import MAX_FETCHED_BYTES, fetched, fetched_directory
from dwcp_ml.storage.remote_objects import (
    MAX_TRIES,
    MIN_BYTES_PER_SECOND,
    SLOW_SECONDS,
    StorageError,
    _Limit,
    remote,
)
from dwcp_ml.training_run.dataset import validate_at
from tests.errors import about, coded

pytestmark = pytest.mark.slow


class Server(http.server.ThreadingHTTPServer):
    """Responds with what ``responses`` holds, one after the other, and then with 200."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.responses, self.asked, self.headers = [], [], []

    def address(self, path):
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        self.server.headers.append(self.headers)
        status = self.server.responses.pop(0) if self.server.responses else 200
        location = ""
        if isinstance(status, tuple):
            status, location = status
        body = b"content"
        if status == "endless":
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while True:
                    self.wfile.write(body * 10_000)
            return
        slow = status == "slow"
        if slow:
            status = 200
        if status == "cut":
            status, body = 200, b"con"
        self.send_response(status)
        self.send_header("Content-Length", "7")
        if location:
            self.send_header("Location", location)
        self.end_headers()
        with contextlib.suppress(OSError):
            for byte in body if slow else ():
                self.wfile.write(bytes([byte]))
                time.sleep(0.05)
            self.wfile.write(b"" if slow else body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def web():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def source(address):
    """Return what an address names, and the waits between tries."""
    waits = []
    return remote(address, sleep=waits.append), waits


def test_an_object_is_read_written_once_listed_and_removed(bucket):
    models = remote(bucket.address("models"))
    one = models.below("a/1/manifest.json")
    assert not one.exists()
    assert one.create(b"first")
    assert not one.create(b"second")
    assert bucket.get("models/a/1/manifest.json") == one.read(10) == b"first"
    bucket.put("models/a/2/x", b"")
    bucket.put("models/b", b"")
    bucket.put("models-of-others/c", b"")
    assert models.names() == ["a", "b"]
    assert models.below("a").names() == ["1", "2"]
    assert models.objects() == ["a/1/manifest.json", "a/2/x", "b"]
    one.remove()
    one.remove()
    assert bucket.keys("models/a") == ["models/a/2/x"]
    assert remote(bucket.address("nothing")).names() == []
    assert remote(bucket.address("nothing")).objects() == []


def test_a_conditional_write_reaches_the_store(bucket):
    """Without a look before: the second is refused by the store itself."""
    first, second = (remote(bucket.address("key")) for _ in range(2))
    assert first.create(b"first")
    seen = iter([False, True])
    second.files.exists = lambda path: next(seen)
    assert not second.create(b"second")
    assert bucket.get("key") == b"first"


def test_what_is_missing_or_too_large_is_not_tried_again(bucket):
    found, waits = source(bucket.address("none.csv"))
    with pytest.raises(StorageError, check=about(ErrorCode.MISSING, found.address)):
        found.read(10)
    with pytest.raises(StorageError, check=coded(ErrorCode.MISSING)):
        remote("s3://no-such-bucket/t.csv").read(10)
    big, _ = source(bucket.put("big", b"x" * 1_000))
    with pytest.raises(StorageError, check=about(ErrorCode.TOO_LARGE, big.address)):
        big.read(999)
    assert big.read(1_000) == b"x" * 1_000
    assert waits == []


def test_missing_credentials_are_named(bucket, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    found, waits = source(bucket.address("t.csv"))
    with pytest.raises(
        StorageError, match="AWS_ACCESS_KEY_ID", check=about(ErrorCode.FORBIDDEN, found.address)
    ):
        found.read(10)
    assert waits == []


def test_a_store_that_is_not_there_is_tried_a_few_times(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    found, waits = source("s3://b/t.csv")
    begun = time.monotonic()
    with pytest.raises(StorageError, check=about(ErrorCode.NO_RESPONSE, "s3://b/t.csv")):
        found.read(10)
    assert waits == [0.5, 1.0, 2.0]
    assert time.monotonic() - begun < 20.0


@pytest.mark.parametrize("faults", [[503], [500, 429, 503], ["cut"], ["cut", 500]])
def test_a_fault_that_passes_is_tried_again(web, faults, tmp_path):
    web.responses = list(faults)
    found, waits = source(web.address("t.csv"))
    found.download(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes() == b"content"
    assert len(web.asked) == len(faults) + 1
    assert len(waits) == len(faults)


def test_faults_that_stay_end(web):
    web.responses = [500] * 100
    found, _ = source(web.address("t.csv?X-Amz-Signature=secret"))
    with pytest.raises(StorageError, check=coded(ErrorCode.NO_RESPONSE)) as failed:
        found.read(10)
    assert len(web.asked) == MAX_TRIES
    assert web.asked[0].endswith("secret")
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, ErrorCode.FORBIDDEN), (403, ErrorCode.FORBIDDEN), (404, ErrorCode.MISSING),
        (400, ErrorCode.STATUS), (410, ErrorCode.STATUS),
    ],
)  # fmt: skip
def test_what_a_web_server_refuses_is_said_at_once(web, status, code):
    web.responses = [status]
    found, _ = source(web.address("t.csv"))
    with pytest.raises(StorageError, check=coded(code)):
        found.read(10)
    assert len(web.asked) == 1


def test_a_signature_in_an_address_is_in_no_text(web, capsys):
    address = web.address("t.csv?sig=secret")
    with pytest.raises(
        DataRefused, check=about(ErrorCode.CHANGED, web.address("t.csv"))
    ) as refused:
        validate_at(f"{address}#md5={'0' * 32}")
    assert main(["data", "version", address]) == 0
    assert main(["data", "version", address, "--json"]) == 0
    assert main(["data", "version", address, "--dvc"]) == 2
    printed = capsys.readouterr()
    assert "secret" not in f"{refused.value} {printed.out} {printed.err}"


def test_a_web_server_takes_nothing(web):
    with pytest.raises(UsageError, check=coded(ErrorCode.UNSUPPORTED)):
        remote(web.address("t.csv")).create(b"")
    assert web.asked == []


def test_a_proxy_of_the_environment_is_used(web, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", web.address(""))
    monkeypatch.setenv("http_proxy", web.address(""))
    monkeypatch.setenv("no_proxy", "")
    assert remote("http://elsewhere.example/t.csv").read(10) == b"content"
    assert web.asked == ["http://elsewhere.example/t.csv"]


def test_a_proxy_gets_its_own_user(web, monkeypatch):
    monkeypatch.setenv("http_proxy", web.address("").replace("//", "//me:secret@"))
    monkeypatch.setenv("no_proxy", "direct.example")
    assert remote("http://elsewhere.example/t.csv").read(10) == b"content"
    expected = f"Basic {base64.b64encode(b'me:secret').decode()}"
    assert web.headers[0]["Proxy-Authorization"] == expected
    assert "Authorization" not in web.headers[0]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_its_target_is_named(web, status):
    target = web.address("internal/secrets")
    web.responses = [(status, f"{target.replace('//', '//me:word@')}?sig=SECRET")]
    found, waits = source(web.address("t.csv?sig=SECRET"))
    with pytest.raises(StorageError, check=coded(ErrorCode.STATUS)) as failed:
        found.read(10)
    assert web.asked == ["/t.csv?sig=SECRET"]
    assert waits == []
    assert target in str(failed.value)
    for secret in ("SECRET", "word", "content"):
        assert secret not in str(failed.value)


@pytest.mark.parametrize("location", ["", "http://[bad"])
def test_a_redirect_to_nowhere_is_no_file(web, location):
    web.responses = [(302, location)]
    with pytest.raises(StorageError, check=coded(ErrorCode.STATUS)):
        remote(web.address("t.csv")).read(10)


def test_telemetry_is_not_read_from_where_a_server_redirects_to(web):
    """Neither its content nor its columns may get into an error."""
    web.responses = [(302, web.address("latest/meta-data.csv"))]
    with pytest.raises(DataRefused) as refused:
        validate_at(web.address("t.csv"), specs=model_specs("bandwidth"))
    assert "content" not in str(refused.value)
    assert len(web.asked) == 1


def test_netrc_is_not_read(web, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert remote(web.address("t.csv")).read(10) == b"content"
    assert "Authorization" not in web.headers[0]


def test_what_is_sent_too_slowly_is_stopped(web, tmp_path):
    """Each byte resets a limit on the silence between two."""
    clock = itertools.count(0.0, SLOW_SECONDS / 2 + 1)
    found = remote(web.address("t.csv?sig=SECRET"), now=lambda: next(clock))
    web.responses = ["slow"] * MAX_TRIES
    with pytest.raises(StorageError, check=coded(ErrorCode.TIMEOUT)) as failed:
        found.download(tmp_path / "t.csv")
    assert "SECRET" not in str(failed.value)
    assert len(web.asked) == 1, "it would take as long again"


def test_a_driver_that_says_how_much_has_arrived_is_limited_too():
    """That of Azure does not say how much more."""
    clock = [0.0]
    limit = _Limit("az://data/t.csv", 10, lambda: clock[0])
    limit.absolute_update(10)
    with pytest.raises(StorageError, check=coded(ErrorCode.TOO_LARGE)):
        limit.absolute_update(11)
    limit, clock[0] = _Limit("az://data/t.csv", None, lambda: clock[0]), 100.0
    limit.absolute_update(100 * MIN_BYTES_PER_SECOND)
    with pytest.raises(StorageError, check=coded(ErrorCode.TIMEOUT)):
        limit.absolute_update(100 * MIN_BYTES_PER_SECOND - 1)


def test_a_copy_has_a_limit_also_if_the_server_names_no_length(web):
    assert inspect.signature(fetched).parameters["max_bytes"].default == MAX_FETCHED_BYTES
    web.responses = ["endless"]
    with (
        pytest.raises(StorageError, check=coded(ErrorCode.TOO_LARGE)),
        fetched(web.address("t.csv"), max_bytes=100_000),
    ):
        pass


def test_copies_are_removed_and_errors_name_the_address(bucket, tmp_path):
    address = bucket.put("data/t.csv", b"1,2\n")
    local = tmp_path / "i.json"
    local.write_text("[]")
    with (
        pytest.raises(UsageError, match=f"^{address} is wrong$"),
        fetched(address, str(local)) as files,
    ):
        copy = files[address]
        assert copy.name == "t.csv"
        assert copy.read_bytes() == b"1,2\n"
        assert files[str(local)] == local
        raise UsageError(f"{copy} is wrong")
    assert not copy.exists()
    assert local.exists()


def test_a_directory_is_copied_whole(bucket):
    bucket.put("log/a.jsonl", b"a")
    bucket.put("log/b/c.jsonl", b"c")
    for marker in ("log/", "log/b/", "log/empty/"):
        bucket.put(marker, b"")
    store = remote(bucket.address("log"))
    assert (store.names(), store.objects()) == (["a.jsonl", "b", "empty"], ["a.jsonl", "b/c.jsonl"])
    assert store.listing()["a.jsonl"].size_bytes == 1
    assert store.listing()["a.jsonl"].modified.timestamp() == pytest.approx(time.time(), abs=600)
    with fetched_directory(bucket.address("log/")) as directory:
        assert (directory / "a.jsonl").read_bytes() == b"a"
        assert (directory / "b/c.jsonl").read_bytes() == b"c"
    assert not directory.exists()
    with (
        pytest.raises(StorageError, check=coded(ErrorCode.MISSING)),
        fetched_directory(bucket.address("none")),
    ):
        pass


def test_a_name_that_leads_out_of_the_directory_is_refused(bucket, monkeypatch):
    bucket.put("log/a", b"a")
    monkeypatch.setattr("dwcp_ml.storage.remote_objects.Remote.objects", lambda self: ["../../a"])
    with (
        pytest.raises(StorageError, check=coded(ErrorCode.FORBIDDEN)),
        fetched_directory(bucket.address("log")),
    ):
        pass
