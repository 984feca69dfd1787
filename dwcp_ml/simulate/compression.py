"""Payloads of the links, and the throughput of each compression level."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from dwcp_ml.contract.arrays import Floats, Ints
from dwcp_ml.simulate.settings import SimulatorSettings
from dwcp_ml.simulate.topology import Topology

CODEC_PATH: Final = Path(__file__).with_name("codec.json")
"""The committed output of `benchmarks/measure_codec.py`."""

LEVELS = 10  # 0 = off, 1 to 9 = zstd
COUNTER_LEVEL = 3  # zstd's default level: the one whose ratio the telemetry reports

# share of link hours and typical delta hit rate of each measured payload class
PAYLOAD_SHARE = {
    "log_text": 0.22,
    "json_state": 0.22,
    "memory_pages": 0.22,
    "sensor_columns": 0.17,
    "encrypted": 0.17,
}
HIT_RATE = {
    "log_text": 0.35,
    "json_state": 0.70,
    "memory_pages": 0.85,
    "sensor_columns": 0.20,
    "encrypted": 0.03,
}
RATIO_SPREAD = 0.06  # of (ratio - 1) from one link hour to another
STRIPE_SPREAD = 0.03  # of the striped part of the throughput, from one minute to another
HIT_RATE_SPREAD = 0.12  # from one link hour to another
HIT_RATE_NOISE = 0.08  # from one minute to another


@dataclass(frozen=True)
class Codec:
    """The measured codec, arrays of shape (payload classes, 10); level 0 is a plain copy.

    `ratio` is original over compressed size; the speeds are in units of the reference speed.
    """

    ratio: Floats
    compress: Floats
    decompress: Floats


@cache
def load_codec() -> Codec:
    """Return the measured codec of `CODEC_PATH`."""
    table = json.loads(CODEC_PATH.read_text(encoding="utf-8"))

    def stack(field: str, level_0: float) -> Floats:
        return np.array([[level_0, *table["classes"][name][field]] for name in PAYLOAD_SHARE])

    return Codec(
        stack("ratio", 1.0), stack("compress_speed", np.inf), stack("decompress_speed", np.inf)
    )


def pipeline_mbps(
    payload: Ints, compressibility: Floats, line_mbps: Floats, cpu_mbps: Floats
) -> Floats:
    """Payload throughput at every level, Mbit/s (…, 10): compress, send and decompress overlap.

    The slowest stage decides: min(compress speed, line * ratio, decompress speed), where
    ratio = 1 + (measured ratio - 1) * compressibility. `payload` is an index into `PAYLOAD_SHARE`,
    `compressibility` the link hour's factor on (ratio - 1), `line_mbps` the rate of the line and
    `cpu_mbps` the speed of the reference job, all of shape (…).
    """
    codec = load_codec()
    ratio = 1 + (codec.ratio[payload] - 1) * compressibility[..., None]
    speed = np.minimum(codec.compress[payload], codec.decompress[payload]) * cpu_mbps[..., None]
    return np.asarray(np.minimum(line_mbps[..., None] * ratio, speed))


@dataclass(frozen=True)
class CompressionState:
    """Hidden payloads, arrays of shape (T, L).

    Attributes
    ----------
    payload : int, index into `PAYLOAD_SHARE`.
    compressibility : factor of the link hour on (ratio - 1).
    hit_rate : delta hit rate of the link hour.
    line_mbps : rate that the striped transfer reaches on the wire.
    cpu_mbps : speed of the reference job on the slower of the two ends.
    """

    payload: Ints
    compressibility: Floats
    hit_rate: Floats
    line_mbps: Floats
    cpu_mbps: Floats


def simulate_compression(
    settings: SimulatorSettings,
    topology: Topology,
    throughput_mbps: Floats,
    rng: np.random.Generator,
) -> CompressionState:
    """Draw the payload of every link and hour; the line is the striped part of the throughput."""
    steps, links = throughput_mbps.shape
    block = np.arange(steps) * settings.minutes // (settings.payload_hours * 60)
    block_of_step = block.astype(np.int64)
    blocks = int(block_of_step[-1]) + 1
    shares = np.array(list(PAYLOAD_SHARE.values()))
    payload = rng.choice(len(shares), size=(blocks, links), p=shares)
    spread = np.exp(RATIO_SPREAD * rng.standard_normal((blocks, links)))
    typical = np.array(list(HIT_RATE.values()))[payload]
    hit_rate = np.clip(typical + HIT_RATE_SPREAD * rng.standard_normal((blocks, links)), 0.0, 0.98)
    stripe = STRIPE_SPREAD * rng.standard_normal((steps, links))
    cpu = settings.codec_reference_mbps * np.array(settings.codec_cores)[topology.link_type]
    return CompressionState(
        payload=payload[block_of_step],
        compressibility=spread[block_of_step],
        hit_rate=hit_rate[block_of_step],
        line_mbps=throughput_mbps * topology.streams / (topology.streams + 1) * np.exp(stripe),
        cpu_mbps=np.broadcast_to(cpu, (steps, links)),
    )


def compression_readings(
    settings: SimulatorSettings, state: CompressionState, rng: np.random.Generator
) -> dict[str, Floats]:
    """Return the compression counters and the gain of every level, each of shape (T, L)."""
    noise = rng.standard_normal((3, *state.line_mbps.shape))
    measured = load_codec().ratio[state.payload, COUNTER_LEVEL]
    ratio = 1 + (measured - 1) * state.compressibility
    readings = {
        "hde_compression_ratio": np.maximum(1.0, ratio * np.exp(settings.codec_noise * noise[0])),
        "hde_delta_hit_rate": np.clip(state.hit_rate + HIT_RATE_NOISE * noise[1], 0.0, 1.0),
        "amst_transfer_rate": state.line_mbps * np.exp(settings.codec_noise * noise[2]),
    }
    at = pipeline_mbps(state.payload, state.compressibility, state.line_mbps, state.cpu_mbps)
    gain = np.round(at / at[..., :1] - 1, 6)
    return readings | {f"throughput_gain_{level}": gain[..., level] for level in range(LEVELS)}
