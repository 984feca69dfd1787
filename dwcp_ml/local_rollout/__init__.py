"""A rollout on one machine: two model servers, a real Envoy, replayed telemetry, the decision.

driver         observe, decide, store, write; until the rollout ends
envoy          the router: sets a weight and verifies that it is live
envoy_config   Envoy's bootstrap and routes, pure
envoy_admin    responses of Envoy's admin interface, pure
envoy_binary   finds and starts the Envoy binary
servers        a model server that is restarted when it crashes, with a restart count
replay         telemetry as traffic at a given rate
ground_truth   the observed outcome of each prediction, for the ground-truth test
store          the rollout's directory: spec, status, timeline
timeline       the rollout's history, from its directory
"""
