"""The committed codec table is the script's output; ratios don't depend on the machine."""

import json
from pathlib import Path

import pytest

from benchmarks import measure_codec
from dwcp_ml.simulate import compression
from dwcp_ml.simulate.compression import HIT_RATE, PAYLOAD_SHARE, load_codec


def test_the_table_has_every_payload_and_level():
    codec = load_codec()
    assert codec.ratio.shape == codec.compress.shape == codec.decompress.shape
    assert codec.ratio.shape == (len(PAYLOAD_SHARE), 10)
    assert set(measure_codec.PAYLOADS) == set(PAYLOAD_SHARE) == set(HIT_RATE)
    assert sum(PAYLOAD_SHARE.values()) == pytest.approx(1)
    assert (codec.ratio[:, 0] == 1).all()


@pytest.mark.slow
def test_the_ratios_are_measured(monkeypatch):
    pytest.importorskip("zstandard")
    monkeypatch.setattr(measure_codec, "REPEATS", 1)
    monkeypatch.setattr(measure_codec, "LEVELS", (1, 3))
    measured = measure_codec.measure()
    for number, name in enumerate(PAYLOAD_SHARE):
        committed = load_codec().ratio[number, [1, 3]]
        assert measured["classes"][name]["ratio"] == pytest.approx(committed, rel=0.02), name


@pytest.mark.parametrize("named", [True, False])
def test_the_script_writes_the_named_file_or_the_simulators_table(tmp_path, monkeypatch, named):
    path = tmp_path / "codec.json"
    monkeypatch.setattr(measure_codec, "measure", lambda: {"codec": "none"})
    monkeypatch.setattr("sys.argv", ["measure_codec", *(["--output", str(path)] if named else [])])
    if not named:
        assert Path(compression.__file__).with_name("codec.json") == measure_codec.CODEC_PATH
        monkeypatch.setattr(measure_codec, "CODEC_PATH", path)
    measure_codec.main()
    assert json.loads(path.read_text()) == {"codec": "none"}
