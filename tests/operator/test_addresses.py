"""Which addresses lead into the cluster, in all the forms in which they can be written."""

import pytest

from dwcp_ml.operator.addresses import refusal_of_uri

SCHEMES = ("s3", "gs", "https", "pvc", "http")

INTERNAL_HOSTS = [
    "169.254.169.254", "169.254.0.1", "127.0.0.1", "127.1", "0.0.0.0", "0", "10.0.0.1",
    "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "0x7f000001", "2130706433",
    "0177.0.0.1", "0x7f.1", "0xa9fea9fe", "2852039166", "255.255.255.255", "224.0.0.1", "240.0.0.1",
    "[::1]", "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[fd00:ec2::254]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[::ffff:a00:1]", "[::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]", "[2002:7f00:1::]", "[2001:0:7f00:1::]", "localhost", "LOCALHOST",
    "localhost.", "a.localhost", "minio", "minio.storage.svc", "minio.storage.svc.cluster.local",
    "minio.storage.svc.example.com", "Minio.Storage.SVC.", "printer.local",
    "metadata.google.internal", "instance-data.ec2.internal", "host.docker.internal",
    "kubernetes.default.svc:443", "127.0.0.1:80",
]  # fmt: skip
MALFORMED = [
    "https://", "https:///x", "https://[::1", "https://a:b:c/x", "https://example.com:99999/x",
    "https://user@example.com/x", "https://user:secret@example.com/x", "https://@example.com/x",
    "https://%31%32%37.0.0.1/x", "https://１２７.0.0.1/x", "https://127。0。0。1/x",
    "https://example.com\\@127.0.0.1/x", "https://exam\tple.com/x", "https://exa_mple.com-/x",
    "https://.svc/x", "s3://", "s3:///models",
]  # fmt: skip


@pytest.mark.parametrize("host", INTERNAL_HOSTS)
def test_an_internal_host_is_refused(host):
    assert "internal" in refusal_of_uri(f"https://{host}/bundle", SCHEMES, ["*"]), host


@pytest.mark.parametrize("uri", MALFORMED)
def test_what_can_be_read_in_two_ways_is_refused(uri):
    assert refusal_of_uri(uri, SCHEMES, ["*"])


@pytest.mark.parametrize(
    "uri",
    [
        "https://example.com/b", "https://EXAMPLE.com:8443/b", "https://8.8.8.8/b",
        "https://[2606:4700::1111]/b", "s3://models/b/v1", "gs://models-eu/b", "pvc://dwcp-models/b",
        "s3://models.example.com/b", "https://account.blob.core.windows.net/models/b",
    ],
)  # fmt: skip
def test_a_public_host_and_a_bucket_are_allowed(uri):
    assert refusal_of_uri(uri, SCHEMES, ["*"]) == ""


@pytest.mark.parametrize("scheme", ["oci", "file", "hdfs", "git", "hf", "ftp", ""])
def test_a_scheme_that_is_not_listed_is_refused(scheme):
    assert "scheme" in refusal_of_uri(f"{scheme}://example.com/b", SCHEMES, ["*"])


@pytest.mark.parametrize(
    ("host", "pattern"),
    [
        ("minio.storage.svc", "minio.storage.svc"),
        ("minio.storage.svc", "*.storage.svc"),
        ("minio", "minio"),
        ("10.0.0.1", "10.0.0.1"),
        ("[fd00::1]", "fd00::1"),
        ("MINIO.storage.svc.", "Minio.Storage.svc."),
    ],
)
def test_an_internal_host_is_allowed_by_its_name(host, pattern):
    assert refusal_of_uri(f"https://{host}/b", SCHEMES, [pattern]) == ""


@pytest.mark.parametrize(
    ("host", "patterns"),
    [
        ("example.org", []),
        ("example.org", ["example.com"]),
        ("badexample.com", ["*.example.com"]),
        ("example.com", ["*.example.com"]),
        ("example.com.evil.org", ["example.com", "*.example.com"]),
        ("0x0a000001", ["10.0.0.1"]),
    ],
)
def test_without_a_star_only_what_is_listed_is_allowed(host, patterns):
    assert refusal_of_uri(f"https://{host}/b", SCHEMES, patterns)
