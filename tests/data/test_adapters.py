"""Files of other tools as telemetry: real formats, units, and what is refused.

The samples of iperf3 3.12 and of iputils-ping 20221126 were recorded over the loopback interface;
the others are small and written by hand in the real format.
"""

import csv
import json
from pathlib import Path

import pytest

from dwcp_ml.contract.columns import COLUMNS
from dwcp_ml.contract.errors import DataRefused, ErrorCode, UsageError
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.data.adapters.conversion import convert
from dwcp_ml.data.adapters.options import (
    UNITS,
    Choices,
    parse_constants,
    parse_sources,
    parse_zone,
)
from dwcp_ml.data.validation import InvalidTelemetry, validate
from tests.errors import about

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture
def converted(tmp_path):
    """Convert files, or texts by name, and return the rows that were written, as text."""

    def _converted(name, *files, constants=(), carry_seconds=0.0, sources=(), **choices):
        paths = []
        for number, file in enumerate(files):
            path = file
            if not isinstance(file, Path):
                file_name, text = file if isinstance(file, tuple) else (f"f{number}", file)
                path = tmp_path / file_name
                path.write_text(text, encoding="utf-8")
            paths.append(path)
        output = tmp_path / "out" / "telemetry.csv"
        result = convert(
            name,
            paths,
            output,
            Choices(sources=parse_sources(sources), **choices),
            constants=parse_constants(constants),
            carry_seconds=carry_seconds,
        )
        rows = list(csv.DictReader(output.read_text(encoding="utf-8").splitlines()))
        assert len(rows) == result.rows
        assert tuple(rows[0]) == result.columns
        assert [path.name for path in output.parent.iterdir()] == ["telemetry.csv"]
        return rows

    return _converted


def test_a_tcp_sender_of_iperf3(converted):
    rows = converted("iperf3", SAMPLES / "iperf3_tcp.json")
    assert len(rows) == 4  # the omitted second is none
    first = rows[0]
    assert (first["node_id"], first["peer_id"]) == ("127.0.0.1", "127.0.0.1")
    assert first["timestamp"] == "2026-11-30T13:49:23.000Z"  # the end of the second after it
    assert float(first["throughput_mbps"]) == pytest.approx(199.216283)
    assert (first["bytes_tx"], first["retransmits"]) == ("24903680", "0")
    assert (first["transport_type"], first["amst_streams"]) == ("tcp", "2")
    result = json.loads((SAMPLES / "iperf3_tcp.json").read_text())
    streams = result["intervals"][1]["streams"]
    assert int(first["congestion_window"]) == sum(each["snd_cwnd"] for each in streams)
    assert float(first["rtt_ms"]) == pytest.approx(sum(each["rtt"] for each in streams) / 2000)
    assert float(first["jitter_ms"]) == pytest.approx(
        sum(each["rttvar"] for each in streams) / 2000
    )
    assert "packet_loss" not in first  # a sender does not know it


def test_a_udp_receiver_of_iperf3(converted):
    text = (SAMPLES / "iperf3_udp_reverse.json").read_text()
    lossy = text.replace('"lost_packets":\t0', '"lost_packets":\t5')
    rows = converted("iperf3", ("a.json", lossy + "\n" + text), node="b", peer="a")
    assert [row["packet_loss"] for row in rows] == ["0.25", "0.263157895", "0.263157895"] + [
        "0"
    ] * 3
    assert float(rows[0]["jitter_ms"]) == pytest.approx(0.212812470)
    assert {(row["node_id"], row["peer_id"]) for row in rows} == {("b", "a")}
    assert not {"rtt_ms", "congestion_window", "bytes_tx", "retransmits"} & set(rows[0])


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"start": {"connected": []}}', '{"error": "unable to connect"}']
)
def test_what_is_no_result_of_iperf3_is_refused(converted, text):
    with pytest.raises(DataRefused, check=lambda e: e.code in ("Malformed", "NoData")):
        converted("iperf3", text)


def test_the_replies_of_ping(converted):
    rows = converted("ping", SAMPLES / "ping.txt", node="a", interval_seconds=1.0)
    assert [row["timestamp"][14:] for row in rows] == [
        "48:03.974Z", "48:04.512Z", "48:05.524Z", "48:06.036Z",
    ]  # fmt: skip
    assert [float(row["rtt_ms"]) for row in rows] == pytest.approx([0.021, 0.030, 0.0385, 0.025])
    assert [float(row["jitter_ms"]) for row in rows] == pytest.approx([0.01, 0.004, 0.0145, 0.026])
    assert {(row["node_id"], row["peer_id"]) for row in rows} == {("a", "127.0.0.1")}
    assert {row["packet_loss"] for row in rows} == {"0"}


def reply(seq, time, rtt=1.0, tail=""):
    return f"[{time:.6f}] 64 bytes from h (192.0.2.1): icmp_seq={seq} ttl=64 time={rtt} ms{tail}\n"


HEADER = "PING h (192.0.2.1) 56(84) bytes of data.\n"


def test_lost_replies_repeated_ones_and_numbers_that_start_over(converted):
    text = HEADER + "[1700000001.0] no answer yet for icmp_seq=2\n"
    text += reply(1, 1.7e9) + reply(1, 1.7e9, tail=" (DUP!)") + reply(4, 1.7e9 + 3)
    text += reply(5, 1.7e9 + 10) + HEADER + reply(1, 1.7e9 + 60)
    rows = converted("ping", text, node="a")
    assert [row["packet_loss"] for row in rows] == ["0.5", "0", "0"]
    assert [row["jitter_ms"] for row in rows] == ["0", "0", ""]
    numbers = [*range(1, 65_536), 0, 1, 3]
    many = "".join(reply(number, 1.7e9 + k / 100) for k, number in enumerate(numbers))
    rows = converted("ping", HEADER + many, node="a")
    assert [float(row["packet_loss"]) for row in rows[:-1]] == [0.0] * (len(rows) - 1)
    assert float(rows[-1]["packet_loss"]) == pytest.approx(1 / (len(numbers) % 1000 + 1))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (HEADER + "64 bytes from h (192.0.2.1): icmp_seq=1 ttl=64 time=1.0 ms\n", "line 2"),
        (reply(1, 1.7e9), "line 1"),
        (HEADER + reply(1, 1.7e9).replace(" ms", " s"), "line 2"),
    ],
)
def test_what_is_no_text_of_ping_d_is_refused(converted, text, line):
    with pytest.raises(DataRefused, check=lambda e: e.subject.endswith(line)):
        converted("ping", text, node="a")


def test_a_link_needs_its_names(converted):
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "--node")):
        converted("ping", SAMPLES / "ping.txt")
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "--peer")):
        converted("csv", "t\n1.7e9\n", sources=["timestamp=t"])


def response(*series, kind="matrix", status="success"):
    result = [{"metric": metric, "values": values} for metric, values in series]
    return json.dumps({"status": status, "data": {"resultType": kind, "result": result}})


def test_the_response_of_prometheus(converted):
    labels = {"source": "a", "target": "b"}
    rtt = response(
        ({"__name__": "probe_rtt_seconds", **labels}, [[1.7e9 + 60, "0.02"], [1.7e9, "0.01"]]),
        ({"__name__": "probe_rtt_seconds", "source": "a", "target": "c"}, [[1.7e9, "0.5"]]),
        ({"__name__": "up", "job": "x"}, [[1.7e9, "1"]]),
    )
    loss = response((labels, [[1.7e9, "2.5"], [1.7e9 + 60, "NaN"]]))
    rows = converted(
        "prometheus",
        ("rtt.json", rtt),
        ("loss.json", loss),
        sources=["rtt_ms=probe_rtt_seconds@s", "packet_loss=loss@percent"],
        node_label="source",
        peer_label="target",
    )
    assert [tuple(row.values()) for row in rows] == [
        ("2023-11-14T22:13:20.000Z", "a", "b", "10", "0.025"),
        ("2023-11-14T22:13:20.000Z", "a", "c", "500", ""),
        ("2023-11-14T22:14:20.000Z", "a", "b", "20", ""),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        '{"status": "error", "error": "timeout"}',
        response(({"__name__": "m", "a": "1"}, [[1, "1"]]), kind="vector"),
        response(({"__name__": "m", "a": "1"}, [[1, "1"]])),
        response(*[({"__name__": "m", "node_id": "a", "peer_id": "b"}, [[1.7e9, "1"]])] * 2),
        response(({"__name__": "m", "node_id": "a", "peer_id": "b"}, [[1.7e9, "many"]])),
    ],
)
def test_what_is_no_response_to_a_range_query_is_refused(converted, text):
    with pytest.raises(DataRefused, check=lambda error: error.code is ErrorCode.MALFORMED):
        converted("prometheus", text, sources=["rtt_ms=m"])


def test_a_metric_that_no_file_holds_is_named(converted):
    series = ({"__name__": "m", "node_id": "a", "peer_id": "b"}, [[1.7e9, "1"]])
    with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "rtt")):
        converted("prometheus", response(series), sources=["rtt_ms=rtt", "jitter_ms=m"])


def test_a_trace_of_g_nettrack_pro(converted):
    rows = converted(
        "gnettrack",
        SAMPLES / "gnettrack.csv",
        zone=parse_zone("Europe/Dublin"),
        constants=["link_type=edge", "network_tier=tier3"],
        carry_seconds=3,
    )
    assert [row["timestamp"] for row in rows] == [  # Irish summer time is an hour ahead
        f"2019-07-01T12:40:0{second}.000Z" for second in (4, 5, 9)
    ]
    assert [row["throughput_mbps"] for row in rows] == ["12.5", "0", "7"]
    assert [row["rtt_ms"] for row in rows] == ["90", "90", ""]  # the third is too old to carry
    assert [row["packet_loss"] for row in rows] == ["0.2", "0.2", ""]
    assert {(row["node_id"], row["peer_id"]) for row in rows} == {("gnettrack", "network")}
    assert {row["link_type"] for row in rows} == {"edge"}
    uplink = converted(
        "gnettrack", SAMPLES / "gnettrack.csv", sources=["throughput_mbps=UL_bitrate@kbit/s"]
    )
    assert [row["throughput_mbps"] for row in uplink] == ["0.02", "0.031", "0.04"]


def test_any_table_by_its_columns(converted):
    text = "when,from,to,us\n1700000000000,a,b,1500\n1700000060000,a,,NaN\n"
    rows = converted(
        "csv",
        text,
        sources=["timestamp=when@ms", "node_id=from", "peer_id=to", "rtt_ms=us@us"],
    )
    assert [tuple(row.values()) for row in rows] == [
        ("2023-11-14T22:13:20.000Z", "a", "b", "1.5"),
        ("2023-11-14T22:14:20.000Z", "a", "", ""),
    ]


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("t,x\nyesterday,1\n", ["rtt_ms=x"]),
        ("t,x\n1.7e9,fast\n", ["rtt_ms=x"]),
        ("t,x\n1.7e9\n", ["rtt_ms=x"]),
        ("t,x\n1.7e9,inf\n", ["rtt_ms=x"]),
        ("t,x\n1.7e9,1e308\n", ["rtt_ms=x@s"]),
        ("t,x\ninf,1\n", ["rtt_ms=x"]),
        ("t,x\nnan,1\n", ["rtt_ms=x"]),
        ("t,x\n-1e12,1\n", ["rtt_ms=x"]),
        ("t,x\n0001-01-01T00:00+01:00,1\n", ["rtt_ms=x"]),
    ],
)
def test_cells_that_can_not_be_read_are_named_with_their_line(converted, text, sources):
    with pytest.raises(DataRefused, check=lambda e: e.subject.endswith("line 2")):
        converted("csv", text, sources=["timestamp=t", *sources], peer="p")


def test_times_in_milliseconds_need_their_unit(converted):
    def refuses_with_remedy(error):
        return error.subject.endswith("line 2") and "add @ms" in str(error)

    for milliseconds in ("1700000000000", "1.7e12"):
        with pytest.raises(DataRefused, check=refuses_with_remedy):
            converted("csv", f"t,x\n{milliseconds},1\n", sources=["timestamp=t"], peer="p")
    series = ({"__name__": "m", "node_id": "a", "peer_id": "b"}, [[1.7e12, "1"]])
    with pytest.raises(DataRefused, check=lambda error: error.code is ErrorCode.MALFORMED):
        converted("prometheus", response(series), sources=["rtt_ms=m"])
    text = (SAMPLES / "iperf3_tcp.json").read_text().replace('"timesecs":\t', '"timesecs":\t1000')
    with pytest.raises(DataRefused, check=lambda error: error.code is ErrorCode.MALFORMED):
        converted("iperf3", text)
    with pytest.raises(DataRefused, check=lambda error: error.subject.endswith("line 2")):
        converted("ping", HEADER + reply(1, 1.7e12), node="a")
    rows = converted("csv", "t,x\n253402300799,1\n", sources=["timestamp=t"], peer="p")
    assert rows[0]["timestamp"] == "9999-12-31T23:59:59.000Z"


@pytest.mark.parametrize("word", ["NA", "na", "none", "null", "NaN"])
def test_a_word_for_missing_is_a_name_where_names_are(converted, word):
    sources = ["timestamp=t", "node_id=n", "peer_id=p", "region=r", "rtt_ms=x", "retransmits=y"]
    text = f"t,n,p,r,x,y\n1.7e9,{word},b,{word},{word},1\n1.7e9,a,-,-,2,{word}\n"
    rows = [dict(row) for row in converted("csv", text, sources=sources)]
    time = {"timestamp": "2023-11-14T22:13:20.000Z"}
    names = {"node_id": word, "peer_id": "b", "region": word}
    assert rows == [
        {**time, **names, "rtt_ms": "", "retransmits": "1"},
        {**time, "node_id": "a", "peer_id": "", "region": "", "rtt_ms": "2", "retransmits": ""},
    ]


def test_a_column_that_the_table_lacks_is_named(converted):
    with pytest.raises(DataRefused, check=about(ErrorCode.MISSING, "rtt")):
        converted("csv", "t\n1.7e9\n", sources=["timestamp=t", "rtt_ms=rtt"], peer="p")


@pytest.mark.parametrize(
    ("parse", "pair", "subject"),
    [
        (parse_sources, "rtt=x", "rtt"),
        (parse_sources, "rtt_ms", "--map"),
        (parse_sources, "rtt_ms=", "--map"),
        (parse_sources, "rtt_ms=x@furlong", "furlong"),
        (parse_sources, "link_type=x@ms", "ms"),
        (parse_sources, "retransmits=x@percent", "percent"),
        (parse_constants, "timestamp=1", "--constant"),
        (parse_constants, "link_type=satellite", "link_type"),
        (parse_constants, "rtt_ms=inf", "rtt_ms"),
        (parse_constants, "rtt_ms=nan", "rtt_ms"),
        (parse_constants, "retransmits=few", "retransmits"),
        (parse_constants, "speed=1", "speed"),
    ],
)
def test_unknown_columns_units_and_words_are_refused(parse, pair, subject):
    with pytest.raises(UsageError, check=lambda error: error.subject == subject):
        parse([pair])


def test_an_unknown_zone_or_format_is_refused(converted):
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "Cork")):
        parse_zone("Cork")
    with pytest.raises(UsageError, check=about(ErrorCode.UNKNOWN_NAME, "netflow")):
        converted("netflow", "x")
    with pytest.raises(UsageError, check=about(ErrorCode.INVALID_OPTION, "--map")):
        converted("ping", "x", sources=["rtt_ms=x"])
    for name in ("csv", "prometheus"):
        with pytest.raises(UsageError, check=about(ErrorCode.MISSING, "--map")):
            converted(name, "x")


def test_every_unit_is_one_of_a_column():
    assert set(UNITS) <= {column.unit for column in COLUMNS.values()}
    assert all(units[own] == 1.0 for own, units in UNITS.items() if own != "UTC")


def test_a_file_that_is_not_there_leaves_nothing(converted, tmp_path):
    with pytest.raises(DataRefused, check=about(ErrorCode.CANT_READ, tmp_path / "none.json")):
        converted("iperf3", tmp_path / "none.json")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_model_that_needs_more_refuses_by_name(converted, tmp_path):
    converted("iperf3", SAMPLES / "iperf3_tcp.json")
    with pytest.raises(InvalidTelemetry) as refused:
        validate(tmp_path / "out" / "telemetry.csv", specs=[BANDWIDTH])
    columns = {defect.column for defect in refused.value.report.defects}
    assert columns == {"packet_loss", "link_type", "network_tier"}
