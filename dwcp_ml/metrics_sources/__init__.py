"""Request counters and latency histograms of the two arms of a rollout.

prometheus  instant queries to a Prometheus server
scrape      the ``/metrics`` pages of the model servers, without a Prometheus
samples     samples of either source -> counters of one replica, pure
"""
