"""The closed list of reasons of a rollout's status, with the sentence and the meaning of each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """The closed list of ``status.reason`` of a ModelRollout; its condition reasons are these too.

    ``REASONS`` holds the sentence and the documentation of each.
    """

    NEW_CANDIDATE = "NewCandidate"
    RETRIED = "Retried"
    CANDIDATE_NOT_READY = "CandidateNotReady"
    FIRST_DEPLOYMENT = "FirstDeployment"
    SETTING_WEIGHT = "SettingWeight"
    WEIGHT_CHANGED = "WeightChanged"
    COMPARING = "Comparing"
    COMPARED = "Compared"
    REQUESTS_NOT_KEPT = "RequestsNotKept"
    NOTHING_TO_COMPARE = "NothingToCompare"
    FLAG_NOT_COMPARED = "FlagNotCompared"
    STEP_STARTED = "StepStarted"
    WARMING_UP = "WarmingUp"
    INSUFFICIENT_REQUESTS = "InsufficientRequests"
    DWELLING = "Dwelling"
    INSUFFICIENT_EVIDENCE = "InsufficientEvidence"
    STEP_PASSED = "StepPassed"
    STEP_SKIPPED = "StepSkipped"
    PAUSED = "Paused"
    WATCHING = "Watching"
    WATCH_PASSED = "WatchPassed"
    PROMOTION_PENDING = "PromotionPending"
    ALREADY_STABLE = "AlreadyStable"
    PROMOTED = "Promoted"

    NO_TRAFFIC = "NoTraffic"
    CANDIDATE_LOST_READINESS = "CandidateLostReadiness"
    WEIGHT_UNKNOWN = "WeightUnknown"
    METRICS_UNAVAILABLE = "MetricsUnavailable"
    METRICS_INCOMPARABLE = "MetricsIncomparable"
    BUNDLE_MISMATCH = "BundleMismatch"
    CONTRACT_DIFFERS = "ContractDiffers"
    CONTRACT_UNKNOWN = "ContractUnknown"
    TEST_UNAVAILABLE = "TestUnavailable"
    PODS_DIFFER = "PodsDiffer"

    INVALID_SPEC = "InvalidSpec"
    TEMPLATE_NOT_ALLOWED = "TemplateNotAllowed"
    ADDRESS_NOT_ALLOWED = "AddressNotAllowed"
    RUNTIME_NOT_ALLOWED = "RuntimeNotAllowed"
    TEST_NOT_SUPPORTED = "TestNotSupported"
    SPLIT_NOT_SUPPORTED = "SplitNotSupported"
    INVALID_STATE = "InvalidState"
    STABLE_UNKNOWN = "StableUnknown"
    INFERENCE_SERVICE_MISSING = "InferenceServiceMissing"
    WRITE_REJECTED = "WriteRejected"
    WRITE_FORBIDDEN = "WriteForbidden"
    READ_FORBIDDEN = "ReadForbidden"
    POD_CREATION_FAILED = "PodCreationFailed"
    CLUSTER_PROBLEM = "ClusterProblem"
    REVERTED_BY_ANOTHER_WRITER = "RevertedByAnotherWriter"
    PROMOTION_REVERTED = "PromotionReverted"
    CANDIDATE_IS_STABLE = "CandidateIsStable"
    DELETION_BLOCKED = "DeletionBlocked"
    FIRST_DEPLOYMENT_UNHEALTHY = "FirstDeploymentUnhealthy"

    TEST_FAILED = "TestFailed"
    CANDIDATE_CRASHED = "CandidateCrashed"
    CANDIDATE_UNREADY = "CandidateUnready"
    PREVIOUSLY_ROLLED_BACK = "PreviouslyRolledBack"
    REMOVAL_PENDING = "RemovalPending"
    ABORTED = "Aborted"
    ROLLED_BACK = "RolledBack"


class Stall(StrEnum):
    """When a rollout that waits for this reason counts as stalled."""

    NEVER = "never"
    """It goes on without action, or the user paused it."""
    AFTER_DEADLINE = "after 10 minutes"
    """Expected for a while; stalled beyond the progress deadline."""
    AFTER_GRACE = "after a minute"
    """Unexpected; stalled unless it is over within ``stall_seconds``."""
    AT_ONCE = "at once"
    """Nothing can go on until an object or the cluster is changed."""


@dataclass(frozen=True)
class ReasonText:
    """What a reason is to people.

    Parameters
    ----------
    sentence
        Template of the status message, over the fields of ``Cause``.
    description
        For the reference: what is so, and what to do where something can be done.
    """

    sentence: str
    stall: Stall
    description: str


_NEVER, _DEADLINE, _GRACE, _ONCE = (
    Stall.NEVER, Stall.AFTER_DEADLINE, Stall.AFTER_GRACE, Stall.AT_ONCE,
)  # fmt: skip

REASONS: Final[dict[Reason, ReasonText]] = {
    # Under way.
    Reason.NEW_CANDIDATE: ReasonText(
        "Version {version} is the new candidate.", _NEVER,
        "The spec names a bundle that this rollout has not seen before.",
    ),
    Reason.RETRIED: ReasonText(
        "Version {version} was rolled back before and is tried again: {detail}", _NEVER,
        "`spec.retry` unblocked the digest of the candidate; `status.retries` says why.",
    ),
    Reason.CANDIDATE_NOT_READY: ReasonText(
        "Waiting for the candidate to become ready.", _DEADLINE,
        "The candidate has no traffic yet, because none of its pods is ready.",
    ),
    Reason.FIRST_DEPLOYMENT: ReasonText(
        "Nothing else is live: version {version} gets all traffic.", _NEVER,
        "The InferenceService had no predictor; there is nothing to compare the candidate with.",
    ),
    Reason.SETTING_WEIGHT: ReasonText(
        "Setting the candidate's weight from {value:.0f} to {percent} %.", _NEVER,
        "The live weight is not yet the one of the step.",
    ),
    Reason.WEIGHT_CHANGED: ReasonText(
        "The live weight is {value:.0f} %; the rollout goes on from {percent} %, the nearest step "
        "that is not above it.", _NEVER,
        "Steps were edited, or another writer changed the weight.",
    ),
    Reason.COMPARING: ReasonText(
        "The shadow step: the candidate has predicted {value:.0f} of {limit:.0f} requests of the "
        "stable; it has no traffic of its own yet.", _NEVER,
        "`spec.shadow`: the candidate predicts what the stable has predicted, and the test "
        "divergence compares the two.",
    ),
    Reason.COMPARED: ReasonText(
        "The shadow step passed. {detail}", _NEVER,
        "The candidate has predicted `minimumPairs` requests of the stable, and the test "
        "divergence found no fault.",
    ),
    Reason.REQUESTS_NOT_KEPT: ReasonText(
        "The shadow step is skipped: the stable's servers keep no requests.", _NEVER,
        "They run without `--requests_port`, with `--no-request-ring`, or are of an older release. "
        "The rollout goes on to its first step; the test divergence has no data.",
    ),
    Reason.NOTHING_TO_COMPARE: ReasonText(
        "The shadow step waits: since the last reconciliation the stable has answered no request "
        "that could be compared ({value:.0f} of {limit:.0f} so far).", _DEADLINE,
        "The stable has no traffic. Check the clients and the gateway, or skip the step with "
        "`spec.skip` and `trafficPercent: 0`.",
    ),
    Reason.FLAG_NOT_COMPARED: ReasonText(
        "The shadow step waits: of requests that the stable {detail} the candidate has predicted "
        "{value:.0f} of {limit:.0f}.", _DEADLINE,
        "Fewer would not show that the candidate's flag is constant. The stable keeps the newest "
        "192 of each answer for a day. Where incidents are rarer, skip the step with `spec.skip` "
        "and `trafficPercent: 0`, or do not wait for them: `spec.shadow.eachFlag: false`.",
    ),
    Reason.STEP_STARTED: ReasonText(
        "Raising the candidate's weight from {value:.0f} to {percent} %.", _NEVER,
        "The candidate is ready, or the step below passed.",
    ),
    Reason.WARMING_UP: ReasonText(
        "Warming up: what a replica responds in the {limit:.0f} s after its first response does "
        "not count ({value:.0f} requests so far).", _NEVER,
        "No replica of the candidate is past `warmUpSeconds` and `warmUpRequests`.",
    ),
    Reason.INSUFFICIENT_REQUESTS: ReasonText(
        "Waiting for traffic: {value:.0f} of {limit:.0f} requests at {percent} %.", _NEVER,
        "The step has not seen its `minimumRequests`.",
    ),
    Reason.DWELLING: ReasonText(
        "Waiting at {percent} %: {value:.0f} of {limit:.0f} s.", _NEVER,
        "The step has not lasted its `dwellSeconds`.",
    ),
    Reason.INSUFFICIENT_EVIDENCE: ReasonText(
        "The test {test} has not decided. {detail}", _NEVER,
        "A required test has neither passed nor failed yet.",
    ),
    Reason.STEP_PASSED: ReasonText(
        "The step of {percent} % passed. {detail}", _NEVER,
        "Every required test passed at this step.",
    ),
    Reason.STEP_SKIPPED: ReasonText(
        "The step of {percent} % was skipped by the user: {detail}", _NEVER,
        "`spec.skip` lets this step pass without proof.",
    ),
    Reason.PAUSED: ReasonText(
        "Paused by the user at {percent} %.", _NEVER,
        "`spec.paused` is true: the weight does not rise; a bad candidate is still rolled back.",
    ),
    Reason.WATCHING: ReasonText(
        "All traffic has gone to the candidate for {value:.0f} s; the stable is kept until "
        "{limit:.0f} s.", _NEVER,
        "The watch after 100 %: the stable is still there to roll back to.",
    ),
    Reason.WATCH_PASSED: ReasonText(
        "The watch ended without a fault; the candidate becomes the stable.", _NEVER,
        "`spec.watchSeconds` are over.",
    ),
    Reason.PROMOTION_PENDING: ReasonText(
        "Version {version} was promoted and is not the stable yet.", _NEVER,
        "KServe has not carried the promotion out.",
    ),
    Reason.ALREADY_STABLE: ReasonText(
        "Version {version} is the stable already.", _NEVER,
        "The InferenceService serves the candidate as its stable.",
    ),
    Reason.PROMOTED: ReasonText(
        "Version {version} is live.", _NEVER, "The rollout ended; the candidate is the stable.",
    ),
    # Waits that stall the rollout when they last.
    Reason.NO_TRAFFIC: ReasonText(
        "The candidate has answered no request since the last reconciliation.", _DEADLINE,
        "The candidate has weight, and no request reaches it. Check the clients and the gateway.",
    ),
    Reason.CANDIDATE_LOST_READINESS: ReasonText(
        "The candidate has traffic and is not ready.", _GRACE,
        "Look at the candidate's pods; after `unreadySeconds` it is rolled back.",
    ),
    Reason.WEIGHT_UNKNOWN: ReasonText(
        "The router does not report the live weight: {detail}.", _GRACE,
        "The HTTPRoute or the Knative Service could not be read, or contradicts itself.",
    ),
    Reason.METRICS_UNAVAILABLE: ReasonText(
        "The metrics of the {arm} are unavailable: {detail}", _GRACE,
        "Prometheus, or the pods' metrics pages, do not answer. The weight does not rise.",
    ),
    Reason.METRICS_INCOMPARABLE: ReasonText(
        "The latencies of the {arm} can't be compared: its replicas have different buckets.",
        _GRACE,
        "The latency histograms have different buckets: the serving images differ.",
    ),
    Reason.BUNDLE_MISMATCH: ReasonText(
        "The candidate's servers still run version {version}.", _GRACE,
        "The pods of the candidate serve another bundle than the one that the spec names.",
    ),
    Reason.CONTRACT_DIFFERS: ReasonText(
        "The candidate and the stable have different contracts ({detail}), which would break their "
        "callers. Deploy the candidate under another model name, as an InferenceService of its "
        "own, and move the callers there.", _ONCE,
        "Names, order, shapes, types, units, ranges or the meaning of the inputs and outputs "
        "differ. The candidate gets no traffic; where it has some, the weight does not rise, and "
        "the tests of harm decide.",
    ),
    Reason.CONTRACT_UNKNOWN: ReasonText(
        "The servers of the {arm} do not report the contract of their model, and the others do: "
        "run all of them on one image of this release.", _GRACE,
        "The contracts can't be compared, because one arm runs an older server. The weight does "
        "not rise.",
    ),
    Reason.TEST_UNAVAILABLE: ReasonText(
        "The test {test} can't be evaluated: {detail}", _GRACE,
        "What the test reads is missing or broken; its verdict says what.",
    ),
    Reason.PODS_DIFFER: ReasonText(
        "The test {test} failed, and a single pod may be the cause: look at {detail}.",
        _GRACE,
        "A node, a zone or a client makes single pods worse, an arm has a single pod that may be "
        "on a slow node, or the pods have answered too little to tell how much they differ; "
        "whether the bundle is worse can't be told. The weight does not rise. Replace the pod, "
        "run more of them, or abort.",
    ),
    # Nothing goes on until an object or the cluster is changed.
    Reason.INVALID_SPEC: ReasonText(
        "The ModelRollout is invalid: {detail}", _ONCE,
        "The object breaks the schema, for instance because it was stored before a rule existed.",
    ),
    Reason.TEMPLATE_NOT_ALLOWED: ReasonText(
        "The operator does not allow the template: {detail}", _ONCE,
        "A value of `spec.template` is not in the operator's allow-list. The weight does not rise; "
        "abort and roll-back work.",
    ),
    Reason.ADDRESS_NOT_ALLOWED: ReasonText(
        "The operator does not allow the bundle's address: {detail}", _ONCE,
        "Scheme or host of `spec.candidate.storageUri` is not in the operator's allow-list. The "
        "weight does not rise; abort and roll-back work.",
    ),
    Reason.RUNTIME_NOT_ALLOWED: ReasonText(
        "The operator does not allow the candidate's runtime: {detail}", _ONCE,
        "`spec.candidate.runtime` is not in the operator's allow-list (`--allowed-runtimes`). The "
        "weight does not rise; abort and roll-back work.",
    ),
    Reason.TEST_NOT_SUPPORTED: ReasonText(
        "The test {test} is not supported on a cluster: nothing there provides its data. Turn it "
        "off.", _ONCE,
        "`spec.analysis` turns on a test without a data source.",
    ),
    Reason.SPLIT_NOT_SUPPORTED: ReasonText(
        "The InferenceService can't split traffic: {detail}", _ONCE,
        "For instance a transformer, cluster-local visibility, or an Ingress without Gateway API.",
    ),
    Reason.INVALID_STATE: ReasonText(
        "The field status.state can't be read: {detail} Remove it to start the rollout over.",
        _ONCE, "The state was edited.",
    ),
    Reason.STABLE_UNKNOWN: ReasonText(
        "The InferenceService does not say which bundle is live: {detail}.", _ONCE,
        "Its predictor names no bundle, or could not be read.",
    ),
    Reason.INFERENCE_SERVICE_MISSING: ReasonText(
        "The InferenceService is gone. Create it again, or remove status.state to make {version} a "
        "first deployment.", _ONCE,
        "It was deleted in the middle of a rollout.",
    ),
    Reason.WRITE_REJECTED: ReasonText(
        "The InferenceService was not changed: {detail}", _ONCE,
        "The API server, an admission webhook or KServe's rules rejected the change.",
    ),
    Reason.WRITE_FORBIDDEN: ReasonText(
        "A change is forbidden: {detail}.", _ONCE,
        "The API server forbids the operator's write: RBAC, a quota or an admission plugin. Its "
        "response has the same fields for all of them; the message says which it is.",
    ),
    Reason.READ_FORBIDDEN: ReasonText(
        "The operator may not read what it needs: {detail}.", _ONCE,
        "RBAC forbids a read. The weight does not rise; a roll-back is still written.",
    ),
    Reason.POD_CREATION_FAILED: ReasonText(
        "The pods of the candidate can't be created: {detail}.", _ONCE,
        "The Deployment reports `ReplicaFailure`, for instance because a quota is used up. The "
        "candidate is held and not rolled back.",
    ),
    Reason.CLUSTER_PROBLEM: ReasonText(
        "The cluster keeps the candidate from running: {detail}.", _GRACE,
        "An image or a secret is missing, every node is full, or a node failed. The candidate is "
        "held and not rolled back; it goes on when its pods are ready.",
    ),
    Reason.REVERTED_BY_ANOTHER_WRITER: ReasonText(
        "The operator's change of the InferenceService was undone {value:.0f} times by {detail}; "
        "it is now tried less often.", _ONCE,
        "For instance a GitOps controller restores the InferenceService: let it ignore "
        "`spec.predictor` and `spec.canary`.",
    ),
    Reason.PROMOTION_REVERTED: ReasonText(
        "Version {version} was promoted, and {detail} then replaced it. The stable is now {arm}.",
        _ONCE,
        "Another writer replaced the promoted version. The operator does not change it back: "
        "deploy another candidate, or restore the promoted version.",
    ),
    Reason.CANDIDATE_IS_STABLE: ReasonText(
        "Version {version} became the stable by another writer; there is nothing to roll back to.",
        _ONCE, "Deploy another candidate.",
    ),
    Reason.DELETION_BLOCKED: ReasonText(
        "The object is being deleted, and its candidate can't be rolled back ({detail}). Set "
        "deletionPolicy to Keep to let it go.", _ONCE,
        "The finalizer of `deletionPolicy: Restore` waits for the traffic to be restored.",
    ),
    Reason.FIRST_DEPLOYMENT_UNHEALTHY: ReasonText(
        "The first deployment is not healthy, and nothing else could serve. {detail}", _ONCE,
        "Look at its pods; deploy another candidate, or set `spec.abort` to remove it.",
    ),
    # Why a candidate is rolled back.
    Reason.TEST_FAILED: ReasonText(
        "The test {test} failed. {detail}", _NEVER, "The candidate is worse than the stable.",
    ),
    Reason.CANDIDATE_CRASHED: ReasonText(
        "The candidate's containers restarted {value:.0f} times; {limit:.0f} are the limit.",
        _NEVER, "`spec.analysis.maxRestarts` was reached, and the stable restarted that much less.",
    ),
    Reason.CANDIDATE_UNREADY: ReasonText(
        "The candidate has traffic and was not ready for {value:.0f} s.", _NEVER,
        "`spec.analysis.unreadySeconds` were reached, while the stable was ready and the cluster "
        "did not keep the candidate from running.",
    ),
    Reason.PREVIOUSLY_ROLLED_BACK: ReasonText(
        "Version {version} was rolled back before; its digest is blocked.", _NEVER,
        "`status.blockedDigests` holds the candidate.",
    ),
    Reason.REMOVAL_PENDING: ReasonText(
        "Version {version} was rolled back and is still deployed; it is being removed.", _NEVER,
        "KServe has not carried the roll-back out.",
    ),
    Reason.ABORTED: ReasonText(
        "Aborted by the user.", _NEVER, "`spec.abort` is true.",
    ),
    Reason.ROLLED_BACK: ReasonText(
        "Rolled back. {detail}", _NEVER,
        "Reason of the conditions after a roll-back; `status.reason` says why it was.",
    ),
}  # fmt: skip
