"""A rollout on one machine: two model servers, a real Envoy, replayed telemetry, the decision.

store    the rollout's directory: what was asked for, its status, its timeline
servers  a model server that is started again when it crashes, and counts how often
replay   telemetry as traffic at a given rate
driver   look, decide, store, write; until it ends
timeline the looks as JSON, Markdown and a page
"""
