#!/usr/bin/env bash
# The whole project on a real Kubernetes: `make kind-test`, or
#
#   tests/kind/run.sh                 all steps, on a new cluster, which is removed at the end
#   tests/kind/run.sh STEP [STEP...]  these steps, on the cluster that a call with KEEP=1 has left
#
#   DRY_RUN=1             print every command instead of running it
#   KEEP=1                leave the cluster, also after a failure
#   CLUSTER=NAME          its name (dwcp-ml)
#   KUBECONFIG_FILE=PATH  a cluster of yours, for steps that are named; it is never removed
#   UI_PORT, S3_PORT      ports of this machine that lead to Kubeflow (18080, 19000)
#   GATEWAY_PORT          port of this machine that leads to the gateway (18081)
#   GITHUB=URL            a mirror, and any version of tests/kind/versions.env: KSERVE_VERSION=v0.22.0
#   OFFLINE=1             set by `python -m tests.kind.offline`, which makes all of this out of packages
#
# The steps, in this order:
#
#   tools          docker, kind, kubectl, git, make, tar are here
#   cluster        kind makes a cluster of one node
#   images         make images, and onto the node
#   gateway-api cert-manager envoy-gateway knative kserve
#   cluster-tests  tests/cluster on the real KServe
#   kubeflow       Kubeflow Pipelines
#   operator       manifests/overlays/kind
#   train          dwcp-ml pipeline submit --wait: the gate has to say APPROVED
#   store          the run's bundles, from Kubeflow's object store onto the servers' volume
#   canary         network policies; good and bad candidates, and kills, under traffic through the gateway
#
# OFFLINE=1 has stand-ins for cert-manager (certificates are made here), and for Kubeflow (train runs
# each step of the compiled pipeline in a pod); store runs a pipeline between S3 and KServe instead.
#
# Versions are in tests/kind/versions.env, the tutorial is docs/kind.md. Each failure ends with one
# sentence: what failed, and what to check.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
ALL="tools cluster images gateway-api cert-manager envoy-gateway knative kserve cluster-tests kubeflow operator train store canary"

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//;p;}' "$HERE/run.sh"; }

case "${1:-}" in
  -h | --help)
    usage
    exit 0
    ;;
esac

cd "$ROOT"
# shellcheck source=tests/kind/versions.env
. "$HERE/versions.env"

STEP=start FAILED='' MADE='' FORWARDS=''
CLUSTER=${CLUSTER:-dwcp-ml}
# The tests of this script put their own in place of these three.
BIN=${KIND_TEST_BIN:-$ROOT/.venv/bin}
WORK=${KIND_TEST_WORK:-$ROOT/.cache/kind}
PAUSE=${KIND_TEST_PAUSE:-5} # seconds between two polls
VOLUMES=$WORK/volumes       # of this machine; the node has it as /volumes
OFFLINE=${OFFLINE:-}
LOG=$WORK/kind-test.log
UI_PORT=${UI_PORT:-18080}
S3_PORT=${S3_PORT:-19000}
GATEWAY_PORT=${GATEWAY_PORT:-18081}
SITE_PORT=${SITE_PORT:-18082}
GIVEN=${KUBECONFIG_FILE:-}
KUBECONFIG_FILE=${KUBECONFIG_FILE:-$WORK/kubeconfig}
VERSION=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' dwcp_ml/__init__.py)
RUN=$(date -u +%Y%m%d-%H%M%S)
# What needs pods of a bundle is shown by the step canary, with real bundles.
CLUSTER_TESTS=(
  tests/cluster/test_crds.py
  tests/cluster/test_publish_candidate.py
  tests/cluster/test_kserve_webhook.py
  tests/cluster/test_kserve_router.py::test_the_client
  tests/cluster/test_kserve_router.py::test_a_service_account_without_rights
)

# shellcheck source=tests/kind/lib.sh
. "$HERE/lib.sh"
# shellcheck source=tests/kind/install.sh
. "$HERE/install.sh"
# shellcheck source=tests/kind/prove.sh
. "$HERE/prove.sh"

for one in "$@"; do
  case " $ALL " in
    *" $one "*) ;;
    *)
      printf 'kind-test: there is no step %s; the steps are: %s.\n' "$one" "$ALL" >&2
      exit 2
      ;;
  esac
done
if [ -n "$GIVEN" ] && [ $# -eq 0 ]; then
  printf 'kind-test: name the steps to run on the cluster of %s: some of them install things there.\n' "$GIVEN" >&2
  exit 2
fi
exec 3>&1
dry || { rm -rf "$WORK/logs" && mkdir -p "$WORK" "$VOLUMES" && : >"$LOG"; }
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
[ -z "$OFFLINE" ] || serve_site

started=$SECONDS
# shellcheck disable=SC2086
[ $# -gt 0 ] || set -- $ALL
for STEP in "$@"; do
  "step_${STEP//-/_}"
done
if dry; then
  printf '\nkind-test: nothing was run.\n'
else
  printf '\nkind-test: %s passed in %s minutes.\n' "$*" $(((SECONDS - started + 59) / 60))
fi
