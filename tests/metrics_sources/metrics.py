"""Metrics pages as a server would write them, by the server's own code."""

from prometheus_client.exposition import generate_latest

from dwcp_ml.serving.metrics import ServerMetrics

MODEL = "bandwidth_predictor"
VERSION = "20260101-000000"
DIGEST = "d" * 64
CONTRACT = "c" * 64


class Served:
    """What ``ServerMetrics`` needs to know of a model."""

    def __init__(self, version=VERSION, digest=DIGEST, name=MODEL):
        self.name, self.version, self.digest, self.contract = name, version, digest, CONTRACT


def page(codes=(200,) * 3, version=VERSION, digest=DIGEST, seconds=0.0021):
    """Return the page of a server that gave these answers."""
    metrics, model = ServerMetrics(), Served(version, digest)
    metrics.serve([model, Served(name="consensus_latency")])
    for code in codes:
        metrics.count(model, code, seconds)
    return generate_latest(metrics.registry)


def lines(**changed):
    """Return the lines of a small page; ``name=text`` replaces a line, ``name=None`` drops it."""
    labels = f'model="{MODEL}",version="{VERSION}"'
    found = {
        "started": "process_start_time_seconds 1e9",
        "info": f'dwcp_model_info{{{labels},digest="{DIGEST}",contract="{CONTRACT}"}} 1.0',
        "ok": f'dwcp_requests_total{{{labels},code="200"}} 7.0',
        "bad": f'dwcp_requests_total{{{labels},code="503"}} 2.0',
        "low": f'dwcp_request_seconds_bucket{{{labels},le="0.01"}} 8.0',
        "inf": f'dwcp_request_seconds_bucket{{{labels},le="+Inf"}} 9.0',
        "feature": f'dwcp_feature_bucket{{{labels},feature="rtt_ms",le="+Inf"}} 9.0',
        "output": f'dwcp_prediction_bucket{{{labels},output="next_throughput_mbps",le="+Inf"}} 9.0',
    }
    found.update(changed)
    return "\n".join(filter(None, found.values())).encode() + b"\n"
