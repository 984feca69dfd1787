# shellcheck shell=bash
# The steps that use the cluster: the pipeline, its bundles, a good and a bad candidate. Sourced by
# run.sh.

step_train() {
  dry || printf '%s\n' "$RUN" >"$WORK/run"
  if [ -n "$OFFLINE" ]; then
    say "every step of the compiled pipeline in a pod, until its gate has spoken"
    live "the pipeline in pods" tests/kind/live/test_pipeline.py
    return
  fi
  say "the pipeline on Kubeflow, until its gate has spoken"
  must "the pipeline could not be compiled; check: dwcp-ml pipeline compile --resources tests/kind/resources.yaml" \
    "$BIN/dwcp-ml" pipeline compile --resources "$HERE/resources.yaml" --output "$WORK/training.yaml"
  forward kubeflow svc/ml-pipeline-ui "$UI_PORT" 80
  local code=0
  run_with_output "$BIN/dwcp-ml" pipeline submit --host "http://127.0.0.1:$UI_PORT" --package "$WORK/training.yaml" \
    --argument version="$RUN" --argument storage_prefix=pvc://dwcp-models --wait --timeout 7200 || code=$?
  case $code in
    0) ;;
    3) fail "the gate said REJECTED to run $RUN; the reasons are in the report of its task gate, in Kubeflow's page." ;;
    7) fail "the run $RUN had not ended after two hours; check: kubectl -n kubeflow get pods" ;;
    *) fail "the run $RUN failed (exit code $code); check: kubectl -n kubeflow get workflows,pods" ;;
  esac
}

# The last run of the step train, also where that was another call of this script.
last_run() {
  dry && return
  [ -s "$WORK/run" ] || fail "no run is known here; run the step train first."
  RUN=$(cat "$WORK/run")
}

step_store() {
  if [ -n "$OFFLINE" ]; then
    say "an S3 server: telemetry from it, a pipeline in pods, its bundle onto it, served from there by KServe"
    STORE_KEY=$("$BIN/python" -c 'import secrets; print(secrets.token_hex(16))') || STORE_KEY=
    export STORE_KEY # which render reads
    apply_ours "the S3 server could not be made; check: kubectl -n object-store get all" object-store.yaml
    available object-store 120 deployment/object-store
    live "the pipeline on an S3 server" tests/kind/live/test_object_store.py
    return
  fi
  last_run
  say "the bundles of $RUN, from Kubeflow's object store onto the servers' volume"
  local key secret
  if ! key=$(of_the_store accesskey) || ! secret=$(of_the_store secretkey); then
    fail "Kubeflow's object store has no keys; check: kubectl -n kubeflow get secret mlpipeline-minio-artifact"
  fi
  forward kubeflow svc/seaweedfs "$S3_PORT" 9000
  S3_ACCESS_KEY=$key S3_SECRET_KEY=$secret must \
    "the bundles of $RUN could not be taken out of Kubeflow's object store; the last lines of $LOG say why." \
    "$BIN/python" -m tests.kind.bundles --endpoint "http://127.0.0.1:$S3_PORT" --version "$RUN" --output "$VOLUMES/models"
}

# of_the_store KEY: what Kubeflow's own pods know of its object store.
of_the_store() {
  local text
  text=$(output_of '' "${K[@]}" get secret mlpipeline-minio-artifact -n kubeflow -o "go-template={{index .data \"$1\" | base64decode}}") || return
  printf '%s' "${text// /}"
}

step_canary() {
  # Where no run has been stored, the tests train one on this machine.
  dry || [ ! -s "$WORK/run" ] || last_run
  say "network policies, good and bad candidates, and kills, under traffic through the gateway"
  live "a rollout on the cluster" tests/kind/live/test_{policies,canary,chaos}.py
  report
  live "a rollout in Knative mode" tests/kind/live/test_knative.py
  report
}

report() {
  say "what was seen"
  run_with_output "${K[@]}" get modelrollouts,inferenceservices,pods -n dwcp-ml || true
  run_with_output "${K[@]}" get httproutes -n dwcp-ml -o \
    'jsonpath={range .items[*]}{.metadata.name}{range .spec.rules[0].backendRefs[*]} {.name}={.weight}{end}{"\n"}{end}' || true
  run_with_output "${K[@]}" get events -n dwcp-ml --field-selector involvedObject.kind=ModelRollout --sort-by=.lastTimestamp || true
}
