"""A bundle that was rightly signed once does not come back, nor under another name."""

import shutil
from datetime import timedelta, timezone

import pytest

from dwcp_ml.contract.errors import ErrorCode, UsageError
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import bundle_digest, open_bundle
from tests.errors import about
from tests.export.bundles import TRAINED, finalize, rejected


@pytest.fixture
def older(tmp_path, forest, report, keys):
    trained = (TRAINED - timedelta(days=1)).isoformat()
    path = finalize(tmp_path / "models", forest, report, version="6", trained=trained)
    sign_bundle(path, keys[0])
    return path


def test_an_older_signed_version_is_not_the_pinned_one(older, signed, keys):
    pinned = bundle_digest(signed)
    shutil.rmtree(signed)
    shutil.copytree(older, signed)
    rejected(signed, "not the bundle that was approved", digest=pinned, public_key=keys[1])


def test_an_older_signed_version_is_before_the_date(older, signed, keys):
    rejected(older, "an older version must not come back", public_key=keys[1], not_before=TRAINED)
    rejected(
        older, "an older version", digest=bundle_digest(older), not_before=TRAINED
    )  # a digest vouches for the date as well
    assert open_bundle(signed, public_key=keys[1], not_before=TRAINED).manifest.version == "7"
    elsewhere = TRAINED.astimezone(timezone(timedelta(hours=5)))
    open_bundle(signed, public_key=keys[1], not_before=elsewhere)
    just_after = TRAINED + timedelta(seconds=1)
    rejected(signed, "an older version", public_key=keys[1], not_before=just_after)


def test_a_date_that_nothing_vouches_for(signed, keys):
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "public_key or digest")):
        open_bundle(signed, not_before=TRAINED)
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, "not_before")):
        open_bundle(signed, public_key=keys[1], not_before=TRAINED.replace(tzinfo=None))


@pytest.mark.parametrize("date", ["", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "\x1b[2J"])
def test_a_training_date_that_is_no_instant(tmp_path, forest, report, keys, date):
    path = finalize(tmp_path / "odd", forest, report, trained=date)
    sign_bundle(path, keys[0])
    open_bundle(path, public_key=keys[1])
    rejected(path, "not a time with a time zone", public_key=keys[1], not_before=TRAINED)


def test_an_older_signed_version_under_a_newer_name(older, keys, tmp_path):
    moved = older.rename(older.with_name("8"))
    assert open_bundle(moved, public_key=keys[1]).manifest.version == "6"
    rejected(moved, "not what its directory is called", public_key=keys[1], strict_location=True)
    (tmp_path / "models" / "reliability_detector" / "6").symlink_to(moved)
    rejected(older, "not what its directory is called", strict_location=True)


def test_a_model_under_another_models_name(signed, tmp_path):
    open_bundle(signed, strict_location=True)
    (tmp_path / "models" / "consensus_latency").mkdir()
    moved = signed.rename(tmp_path / "models" / "consensus_latency" / "7")
    rejected(moved, "holds reliability_detector/7", strict_location=True)


def test_a_link_to_a_bundle_in_its_place(signed, tmp_path):
    (tmp_path / "latest").symlink_to(signed)
    assert open_bundle(tmp_path / "latest", strict_location=True).manifest.version == "7"
