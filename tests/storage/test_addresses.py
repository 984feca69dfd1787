"""The forms of an address, without any store."""

import sys
import tomllib
from pathlib import Path

import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.storage.addresses import absolute, is_writable, local_path, scheme_of, without_query
from dwcp_ml.storage.drivers import DRIVERS
from dwcp_ml.storage.remote_objects import remote
from tests.errors import about, coded


@pytest.mark.parametrize(
    ("address", "scheme"),
    [
        ("t.csv", ""), ("/data/t.csv", ""), ("a:b.csv", ""), ("s3:/t/1.csv", ""),
        ("file:///data/t.csv", "file"), ("pvc://telemetry/t.csv", "pvc"), ("s3://b/k", "s3"),
        ("S3://b/k", "s3"), ("s3://b/k@1/x:y", "s3"), ("https://h:8080/a@b", "https"),
        ("http://[::1]:80/x", "http"), ("az://$root/a@b", "az"), ("https://h:80?a=b", "https"),
        ("gs://b/k", "gs"), ("az://c/b", "az"), ("https://h/p?x=@", "https"),
    ],
)  # fmt: skip
def test_an_address_is_a_path_or_has_a_known_scheme(address, scheme):
    assert scheme_of(address) == scheme


@pytest.mark.parametrize("address", ["hdfs://n/t.csv", "ftp://h/t.csv", "oci://r/m@sha256:0"])
def test_an_unknown_scheme_is_refused_with_the_known_ones(address):
    with pytest.raises(UsageError, match=r"s3://, gs://", check=coded(ErrorCode.UNSUPPORTED)):
        scheme_of(address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:secret@bucket/t.csv", "https://u:secret@host/t.csv",
        "s3://AKIA:secret/cret@bucket/x", "gs://key:secret/a", "az://k:secret", "s3://k:secret/x",
        "s3://AKIAsecret/cret@bucket/x", "https://u:secret/cret@host/t.csv", "s3://k:secret?a@b/x",
        "https://u:secret?cret@host/t.csv",
    ],
)  # fmt: skip
def test_credentials_in_an_address_are_refused_and_not_shown(address):
    with pytest.raises(UsageError, check=coded(ErrorCode.FORBIDDEN)) as refused:
        scheme_of(address)
    assert "secret" not in str(refused.value)


def test_a_signature_is_not_shown():
    assert without_query("https://h/t.csv?X-Amz-Signature=1") == "https://h/t.csv"
    assert without_query("https://h:80/t.csv?X-Amz-Signature=1") == "https://h:80/t.csv"
    assert without_query("ftp://u:pass/word@h/t.csv") == "ftp://h/t.csv"
    assert without_query("/data/a?b@c") == "/data/a?b@c"
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_ADDRESS, "https:///t.csv")):
        remote("https:///t.csv?X-Amz-Signature=1")
    assert without_query("s3://b/what?.csv") == "s3://b/what?.csv"


def test_local_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("DWCP_PVC_ROOT", str(tmp_path))
    (tmp_path / "telemetry").mkdir()
    assert local_path("pvc://telemetry/a/t.csv") == tmp_path / "telemetry/a/t.csv"
    assert str(local_path("file:///data/a%20b.csv")) == "/data/a b.csv"
    assert local_path("s3://b/k") is None
    assert absolute("s3://b/k") == "s3://b/k"
    assert absolute("/t.csv") == "/t.csv"


@pytest.mark.parametrize(
    ("address", "code"),
    [
        ("pvc://telemetry/t.csv", ErrorCode.MISSING),
        ("pvc://telemetry/../other/t.csv", ErrorCode.INVALID_ADDRESS),
        ("pvc://../t.csv", ErrorCode.INVALID_ADDRESS),
        ("pvc:///t.csv", ErrorCode.INVALID_ADDRESS),
        ("file://host/t.csv", ErrorCode.INVALID_ADDRESS),
    ],
)
def test_what_names_no_file_of_this_machine_is_refused(address, code, tmp_path, monkeypatch):
    monkeypatch.setenv("DWCP_PVC_ROOT", str(tmp_path))
    with pytest.raises(UsageError, check=coded(code)):
        local_path(address)


@pytest.mark.parametrize("scheme", DRIVERS)
def test_a_driver_that_is_not_installed_is_one_sentence_with_its_extra(scheme, monkeypatch):
    driver = DRIVERS[scheme]
    monkeypatch.setitem(sys.modules, driver.module, None)
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, driver.module)) as refused:
        remote(f"{scheme}://bucket/key")
    assert (
        str(refused.value)
        == f"{scheme}:// needs {driver.module}: pip install 'dwcp-ml[{driver.extra}]'."
    )


def test_the_extra_of_each_driver_is_one_of_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for driver in DRIVERS.values():
        (needed,) = project["optional-dependencies"][driver.extra]
        assert needed.startswith(driver.module)


def test_azure_has_the_form_of_kserve_too():
    blob = "https://account.blob.core.windows.net/container/models"
    assert is_writable(blob)
    assert not is_writable(f"{blob}?sig=1")
    assert not is_writable("https://example.com/models")
    found = remote(blob)
    assert (found.path, found.driver.module) == ("container/models", "adlfs")
    assert found.files.account_name == "account"


@pytest.mark.parametrize("address", ["s3://", "s3:///key", "https:///t.csv"])
def test_an_address_without_a_bucket_is_refused(address):
    with pytest.raises(UsageError, check=coded(ErrorCode.INVALID_ADDRESS)):
        remote(address)


def test_the_variables_of_kserves_secrets_are_used(monkeypatch):
    for name, value in {
        "S3_ENDPOINT": "minio.kubeflow:9000", "S3_USE_HTTPS": "0", "S3_VERIFY_SSL": "0",
        "awsAnonymousCredential": "true",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    files = remote("s3://b/k").files
    assert files.endpoint_url == "http://minio.kubeflow:9000"
    assert files.client_kwargs == {"verify": False}
    assert files.anon
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://s3.example.com")
    assert remote("s3://b/k").files.endpoint_url is None, "botocore reads the variable itself"
