"""Files, seeds and settings."""

import json

import pandas as pd
import pytest
from pydantic import ValidationError

from dwcp_ml.contract.columns import COLUMNS, ColumnType
from dwcp_ml.contract.errors import DwcpError, ErrorCode
from dwcp_ml.data.incidents import read_incidents
from dwcp_ml.simulate import SimulatorSettings, generate, simulate
from dwcp_ml.simulate.settings import PUBLISHED_ONLY, PUBLISHED_RATES
from tests.errors import about

FILES = ("telemetry.csv", "incidents.json", "ceilings.json", "oracles.parquet")


def contents(directory):
    return [(directory / name).read_bytes() for name in FILES]


def test_same_seed_same_bytes(tmp_path, short):
    result = simulate(short, tmp_path / "one")
    simulate(short, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert result.rows == len(pd.read_csv(result.telemetry))


def test_another_seed_other_bytes(tmp_path, short):
    simulate(short, tmp_path / "one")
    simulate(short.model_copy(update={"seed": 43}), tmp_path / "two")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert all(a != b for a, b in zip(one, two, strict=True))


def test_nothing_else_is_left_behind(tmp_path, short):
    simulate(short, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FILES)


def test_progress_reaches_one(tmp_path, short):
    seen = []
    simulate(short, tmp_path, progress=lambda share, text: seen.append((share, text)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(text for _, text in seen)


def test_a_directory_that_can_not_be_written(tmp_path, short):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DwcpError, check=about(ErrorCode.CANT_WRITE, "file")):
        simulate(short, tmp_path / "file")


def test_the_columns_are_those_of_the_contract(telemetry):
    assert set(telemetry.frame.columns) == set(COLUMNS)


def test_the_values_are_in_the_ranges_of_the_contract(telemetry):
    frame = telemetry.frame
    assert not frame.isna().any().any()
    for name, column in COLUMNS.items():
        if column.kind is ColumnType.CATEGORY:
            assert set(frame[name]) <= set(column.categories), name
        if column.minimum is not None:
            low = frame[name].min()
            assert low > column.minimum if column.exclusive_minimum else low >= column.minimum, name
        if column.maximum is not None:
            assert frame[name].max() <= column.maximum, name


def test_what_is_written_is_what_was_generated(tmp_path, short):
    result = simulate(short, tmp_path)
    written = pd.read_csv(result.telemetry, parse_dates=["timestamp"])
    expected = generate(short).frame
    pd.testing.assert_frame_equal(
        written, expected, check_dtype=False, check_exact=False, rtol=1e-12
    )


def test_rows_are_in_the_order_of_time_and_unique(telemetry):
    frame = telemetry.frame
    assert frame["timestamp"].is_monotonic_increasing
    assert not frame.duplicated(["timestamp", "node_id", "peer_id"]).any()


def test_there_are_gaps_but_few(telemetry):
    settings = telemetry.settings
    whole = settings.steps * telemetry.hidden.topology.links
    assert 0.99 * whole < len(telemetry.frame) < whole


def test_the_incidents_are_read_back(tmp_path, telemetry, short):
    simulate(short, tmp_path)
    incidents = read_incidents(tmp_path / "incidents.json")
    records = json.loads((tmp_path / "incidents.json").read_text())
    assert len(incidents) == len(records) > 0
    assert all(incident.has_interval for incident in incidents)
    assert {record["node_id"] for record in records} <= set(telemetry.frame["node_id"])


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": -1},
        {"nodes": 2},
        {"cadence_seconds": 0},
        {"throughput_noise": 0},
        {"codec_cores": (1.0, 1.0, 1.0)},
        {"latency_episodes": "step"},
        {"sead": 1},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError):
        SimulatorSettings(**wrong)


def test_each_profile_has_its_own_rates():
    steps, published = SimulatorSettings(), SimulatorSettings(latency_episodes="published")
    assert steps.latency_episodes == "steps"
    assert steps.latency_episodes_per_node_day == 6
    assert not any(getattr(steps, name) for name in PUBLISHED_ONLY)
    for name, rate in PUBLISHED_RATES.items():
        assert getattr(published, name) == rate
        assert str(rate) in (SimulatorSettings.model_fields[name].description or "")


@pytest.mark.parametrize("name", PUBLISHED_RATES)
def test_a_rate_that_is_set_replaces_that_of_the_profile(name):
    settings = SimulatorSettings(latency_episodes="published", **{name: 0.5})
    assert getattr(settings, name) == 0.5


@pytest.mark.parametrize("name", PUBLISHED_ONLY)
def test_a_rate_of_the_other_profile_is_refused(name):
    with pytest.raises(ValidationError, match=f"{name} is a setting of the profile published"):
        SimulatorSettings(**{name: 0.1})
    assert getattr(SimulatorSettings(**{name: 0}), name) == 0


@pytest.mark.parametrize("profile", ["steps", "published"])
def test_settings_are_read_back(profile):
    settings = SimulatorSettings(latency_episodes=profile)
    assert SimulatorSettings.model_validate(settings.model_dump(mode="json")) == settings


def test_every_setting_is_described():
    for name, field in SimulatorSettings.model_fields.items():
        assert field.description, name


def test_the_settings_of_one_subject_leave_the_others_alone(short):
    usual = generate(short).frame
    other = generate(short.model_copy(update={"latency_noise": 0.1})).frame
    changed = [name for name in usual if not usual[name].equals(other[name])]
    assert changed == ["consensus_latency_ms"]


@pytest.mark.parametrize("changes", [{"cadence_seconds": 300}, {"nodes": 9}, {"peers_per_node": 1}])
def test_other_sizes(short, changes):
    settings = short.model_copy(update=changes)
    frame = generate(settings).frame
    assert frame["node_id"].nunique() == settings.nodes
    peers = frame.groupby("node_id")["peer_id"].nunique()
    assert (peers == settings.peers_per_node).all()
    assert (frame["node_id"] != frame["peer_id"]).all()
