"""How a rollout reaches the world, on one machine and on a cluster; nothing is decided here.

envoy          a real Envoy in front of stable and candidate: set a share, verify that it is live
envoy_config   what Envoy is told: bootstrap and routes, pure
envoy_admin    what Envoy's admin interface says, pure
envoy_binary   where Envoy is, and how it is started
scrape         an arm's counters from the ``/metrics`` of its servers
prometheus     the same from a Prometheus
samples        samples of either source -> the counters of one replica, pure
pairs          both arms' prediction logs -> how far apart their answers to one request are
divergence     how far apart two answers are, pure
log_tail       new lines of a prediction log in the order of time, from a cursor
http           one bounded GET
kube           what is asked of a Kubernetes API server, pure
kube_client    the same over HTTP
kserve         moves the traffic of an InferenceService, and reads what is live
kubeflow       pipelines submitted, and their state
kubeflow_run   what Kubeflow says of a run, pure
"""
