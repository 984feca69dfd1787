"""Kubernetes: the API client, KServe's objects, the manifests of a run, the publish step.

api                object kinds, the client protocol and its errors, pure
client             the protocol over HTTP
kserve             moves the traffic of an InferenceService, and reads the live weights
manifests          the InferenceService and the ModelRollout of an approved model
publish_candidate  writes the ModelRollouts of approved models to a cluster
"""
