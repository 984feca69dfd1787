"""Bundles are found in a directory, and loaded."""

import shutil

import pytest

from dwcp_ml.contract.errors import BundleRefused, ErrorCode, UsageError
from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.serving.repository import find_bundles, load_models
from tests.errors import about
from tests.serving.bundles import MODELS, VERSION, make_bundle

NAME = "reliability_detector"


@pytest.fixture
def place(tmp_path):
    return tmp_path / "models"


def versions(directory, *names):
    for name in names:
        make_bundle(directory, NAME, name)


def test_all_models_of_a_directory_are_found(model_dir):
    assert find_bundles(model_dir) == {name: model_dir / name / VERSION for name in MODELS}


@pytest.mark.parametrize(
    ("names", "newest"),
    [
        (("9", "10"), "10"),
        (("v9", "v10"), "v10"),
        (("1.9.0", "1.10.0"), "1.10.0"),
        (("20260101-120000", "20260101-090000", "20251231-235959"), "20260101-120000"),
        (("7",), "7"),
    ],
)
def test_the_newest_version_is_served(place, names, newest):
    versions(place, *names)
    assert find_bundles(place) == {NAME: place / NAME / newest}
    assert find_bundles(place / NAME) == {NAME: place / NAME / newest}


def test_half_written_directories_are_not_seen(place):
    versions(place, "1")
    shutil.copytree(place / NAME / "1", place / NAME / ".2.partial")
    shutil.copytree(place / NAME, place / f".{NAME}.old")
    shutil.copytree(place / NAME / "1", place / f".{NAME}.old" / "3")
    assert find_bundles(place) == {NAME: place / NAME / "1"}


@pytest.mark.parametrize("name", [NAME, "reliability", "reliability-detector"])
def test_a_model_is_selected_by_any_of_its_names(model_dir, name):
    assert list(load_models(model_dir, name)) == [NAME]


@pytest.mark.parametrize("name", [None, NAME, "reliability", "reliability-detector"])
def test_a_single_bundle_is_served_from_any_directory(model_dir, tmp_path, name):
    mounted = tmp_path / "mnt" / "models"
    shutil.copytree(model_dir / NAME / VERSION, mounted)
    (model,) = load_models(mounted, name).values()
    assert (model.name, model.version, model.ready) == (NAME, VERSION, True)


def test_versions_may_be_mounted_without_their_model(place, tmp_path):
    versions(place, "1", "2")
    mounted = tmp_path / "mnt" / "versions"
    shutil.copytree(place / NAME, mounted)
    assert load_models(mounted)[NAME].version == "2"


def test_a_version_that_was_moved_is_refused_in_a_directory_of_models(place):
    versions(place, "1", "2")
    (place / NAME / "2").rename(place / NAME / "3")
    with pytest.raises(BundleRefused, check=about(ErrorCode.MISMATCH, "reliability_detector/2")):
        load_models(place)


def test_a_model_in_the_place_of_another_is_refused(place):
    make_bundle(place, NAME)
    (place / NAME).rename(place / "consensus_latency")
    with pytest.raises(
        BundleRefused, check=about(ErrorCode.MISMATCH, "reliability_detector/20260101-000000")
    ):
        load_models(place)


def test_another_model_than_the_one_asked_for_is_refused(model_dir):
    with pytest.raises(BundleRefused, check=about(ErrorCode.MISMATCH, "reliability_detector")):
        load_models(model_dir / NAME / VERSION, "latency")


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda d: None, (ErrorCode.WRONG_TYPE, "models")),
        (lambda d: d.mkdir(), (ErrorCode.NO_DATA, "models")),
        (
            lambda d: make_bundle(d, "consensus_latency"),
            (ErrorCode.MISSING, "reliability_detector"),
        ),
    ],
)
def test_nothing_to_serve_is_one_sentence(place, make, fault):
    make(place)
    with pytest.raises(UsageError, check=about(*fault)) as rejected:
        find_bundles(place, "reliability")
    assert str(rejected.value).endswith(".")


def test_an_unknown_name_is_one_sentence(model_dir):
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "reliabilty")):
        find_bundles(model_dir, "reliabilty")


def test_one_bad_bundle_stops_all(model_dir, place):
    shutil.copytree(model_dir, place)
    with (place / NAME / VERSION / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleRefused, check=about(ErrorCode.CHANGED, "model.onnx")):
        load_models(place)


@pytest.mark.parametrize("is_only_bundle", [False, True])
def test_only_the_approved_digest_is_served(model_dir, models, is_only_bundle):
    directory = model_dir / NAME / VERSION if is_only_bundle else model_dir
    digest = models[NAME].digest
    assert load_models(directory, NAME, digests={NAME: digest})[NAME].digest == digest
    with pytest.raises(BundleRefused, check=about(ErrorCode.CHANGED, "digest")):
        load_models(directory, NAME, digests={NAME: "0" * 64})


def test_only_the_approved_digest_is_served_wherever_it_is_mounted(model_dir, models, tmp_path):
    mounted = tmp_path / "mnt" / "models"
    shutil.copytree(model_dir / NAME / VERSION, mounted)
    assert list(load_models(mounted, digests={NAME: models[NAME].digest})) == [NAME]
    with pytest.raises(BundleRefused, check=about(ErrorCode.CHANGED, "digest")):
        load_models(mounted, digests={NAME: "0" * 64})


def test_a_digest_of_what_is_not_served_is_refused(model_dir, models):
    digests = {"consensus_latency": models["consensus_latency"].digest}
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "consensus_latency")):
        load_models(model_dir, NAME, digests=digests)


def test_only_the_key_owners_bundles_are_served(place, tmp_path):
    versions(place, "1")
    private, public = make_key_pair(tmp_path / "keys")
    with pytest.raises(BundleRefused, check=about(ErrorCode.UNSIGNED)):
        load_models(place, public_key=public)
    sign_bundle(place / NAME / "1", private)
    assert list(load_models(place, public_key=public)) == [NAME]
    _, other = make_key_pair(tmp_path / "other")
    with pytest.raises(BundleRefused):
        load_models(place, public_key=other)
