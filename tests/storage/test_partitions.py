"""Which files an address of a data set names, on this machine and in a store."""

import pytest

from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.storage.partitions import Partition, partitions_of
from tests.errors import about

NAMES = (
    "date=2026-01-01/a.parquet",
    "date=2026-01-01/b.parquet",
    "date=2026-01-10/a.parquet",
    "date=2026-02-01/a.parquet",
    "date=2026-02-01/_SUCCESS",
    "_temporary/0/a.parquet",
    "date=2026-02-01/.a.parquet.crc",
    "top.parquet",
    "notes.txt",
)
PARQUET = (*NAMES[:4], "top.parquet")


def names(address):
    return [part.name for part in partitions_of(address)]


@pytest.fixture
def directory(tmp_path):
    for name in NAMES:
        path = tmp_path / "t" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "t"


CASES = {
    "/": list(PARQUET),
    "/*.parquet": ["top.parquet"],
    "/**/*.parquet": list(PARQUET),
    "/date=2026-01-*/": list(PARQUET[:3]),
    "/date=2026-01-*": list(PARQUET[:3]),
    "/date=2026-0[12]-01/a.parquet": [PARQUET[0], PARQUET[3]],
    "/date=2026-0[!2]-??/a.parquet": [PARQUET[0], PARQUET[2]],
}


@pytest.mark.parametrize("below", CASES)
def test_directories_and_globs_of_this_machine(directory, below):
    assert names(f"{directory}{below}") == CASES[below]
    if "?" not in below:  # begins the query of a URI
        assert names(f"file://{directory}{below}") == CASES[below]
    if below == "/":
        assert names(str(directory)) == CASES["/"]


@pytest.mark.parametrize("name", ["b.csv", "date=2026-01-01/B.CSV", "date=2026-01-01/c.PARQUET"])
def test_telemetry_that_would_not_be_read_is_refused_by_name(directory, name):
    (directory / name).write_bytes(b"")
    with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, name)):
        partitions_of(str(directory))
    if "/" in name:
        with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, name)):
            partitions_of(f"{directory}/date=2026-01-*")
    # A glob says which files are meant.
    assert names(f"{directory}/**/*.parquet") == list(PARQUET)
    assert names(f"{directory}/date=2026-02-*") == [PARQUET[3]]


@pytest.mark.parametrize("name", ["_temporary/a.csv", ".b.csv", "README.md", "c.parquet.crc"])
def test_markers_and_other_files_may_be_beside_telemetry(directory, name):
    (directory / name).write_bytes(b"")
    assert names(str(directory)) == list(PARQUET)


@pytest.mark.slow
def test_prefixes_and_globs_of_a_store(bucket):
    for name in NAMES:
        bucket.put(f"t/{name}", name.encode())
    bucket.put("t2/other.parquet", b"")
    for below, expected in CASES.items():
        assert names(f"{bucket.address('t')}{below}") == expected, below
    first = partitions_of(f"{bucket.address('t')}/")[0]
    assert first.address == bucket.address(f"t/{NAMES[0]}")
    with first.opened() as path:
        assert path.read_text() == NAMES[0]
    assert not path.exists()
    assert partitions_of(bucket.address("t/top.parquet")) is None
    bucket.put("t/date=2026-01-01/c.CSV", b"")
    for below in ("/", "/date=2026-01-*"):
        with pytest.raises(DataRefused, check=about(ErrorCode.MALFORMED, "date=2026-01-01/c.CSV")):
            partitions_of(f"{bucket.address('t')}{below}")
    assert names(f"{bucket.address('t')}/**/*.parquet") == list(PARQUET)
    with pytest.raises(DataRefused, check=about(ErrorCode.MISSING, bucket.address("none/"))):
        partitions_of(bucket.address("none/"))


def test_an_address_of_one_file_is_no_data_set(directory):
    odd = directory / "a*[1].parquet"
    odd.write_bytes(b"")
    for address in (odd, directory / "top.parquet", directory / "missing.csv"):
        assert partitions_of(str(address)) is None
    assert partitions_of("https://host/t?signature=*") is None
    assert partitions_of("s3://bucket/t.parquet") is None


def test_a_data_set_without_files_is_refused(tmp_path):
    for address in (tmp_path, tmp_path / "*.parquet", tmp_path / "none*" / "t"):
        with pytest.raises(DataRefused, check=about(ErrorCode.MISSING, str(address))):
            partitions_of(str(address))
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_ADDRESS, "s3://b*/t/")):
        partitions_of("s3://b*/t/")


def test_values_of_hive_directories():
    part = Partition(
        "date=2026-01-01/node_id=a%20b/peer_id=__HIVE_DEFAULT_PARTITION__/x=1.parquet", ""
    )
    assert part.hive_values == {"date": "2026-01-01", "node_id": "a b", "peer_id": ""}
