# shellcheck shell=bash
# The steps that use the cluster: the pipeline, its bundles, a good and a bad candidate. Sourced by
# run.sh.

MODEL=bandwidth_predictor
ROLLOUT=bandwidth-predictor

step_train() {
  say "the pipeline on Kubeflow, until its gate has spoken"
  dry || printf '%s\n' "$RUN" >"$WORK/run"
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
  last_run
  say "the bundles of $RUN, from Kubeflow's object store onto the servers' volume"
  local key secret
  if ! key=$(of_the_store accesskey) || ! secret=$(of_the_store secretkey); then
    fail "Kubeflow's object store has no keys; check: kubectl -n kubeflow get secret mlpipeline-minio-artifact"
  fi
  forward kubeflow svc/minio-service "$S3_PORT" 9000
  S3_ACCESS_KEY=$key S3_SECRET_KEY=$secret must \
    "the bundles of $RUN could not be taken out of Kubeflow's object store; the last lines of $LOG say why." \
    "$BIN/python" -m tests.kind.bundles fetch --endpoint "http://127.0.0.1:$S3_PORT" --version "$RUN" --output "$WORK/bundles"
  must "no candidates could be made of $MODEL $RUN; was it approved?" \
    "$BIN/python" -m tests.kind.bundles candidates --version "$RUN" --directory "$WORK/bundles"
  apply_ours "the volume of the bundles could not be made; check: kubectl -n dwcp-ml get pvc,pods" bundles.yaml
  must "the pod bundle-store did not start; check: kubectl -n dwcp-ml describe pod,pvc" \
    "${K[@]}" wait pod/bundle-store -n dwcp-ml --for=condition=Ready --timeout=180s
  local one
  for one in $(stored_bundles); do
    put "$one"
  done
}

# of_the_store KEY: what Kubeflow's own pods know of its object store.
of_the_store() {
  local text
  text=$(output_of '' "${K[@]}" get secret mlpipeline-minio-artifact -n kubeflow -o "go-template={{index .data \"$1\" | base64decode}}") || return
  printf '%s' "${text// /}"
}

# stored_bundles: <model>/<version> of all that go onto the volume.
stored_bundles() {
  if dry; then
    printf '%s\n' "$MODEL/$RUN" "$MODEL/$RUN-again" "$MODEL/$RUN-broken"
  else
    (cd "$WORK/bundles" && printf '%s\n' */"$RUN" */"$RUN"-*)
  fi
}

# put MODEL/VERSION: copied to a name that no server reads, verified there, then renamed.
put() {
  local inside=("${K[@]}" exec -n dwcp-ml bundle-store --)
  must "the volume can't be written to; check: kubectl -n dwcp-ml logs bundle-store" \
    "${inside[@]}" sh -c "rm -rf /models/.incoming && mkdir -p /models/.incoming '/models/${1%/*}'"
  if dry; then
    printf '+ tar -C %q -cf - %q | %s exec -i -n dwcp-ml bundle-store -- tar -C /models/.incoming -xf -\n' \
      "$WORK/bundles" "$1" "${K[*]}"
  else
    COPYFILE_DISABLE=1 tar -C "$WORK/bundles" -cf - "$1" |
      kubectl_ exec -i -n dwcp-ml bundle-store -- tar -C /models/.incoming -xf - >>"$LOG" 2>&1 ||
      fail "$1 did not get onto the volume; is it full? kubectl -n dwcp-ml exec bundle-store -- df -h /models"
  fi
  must "$1 arrived damaged on the volume; the last lines of $LOG say what is wrong with it." \
    "${inside[@]}" dwcp-ml bundle verify --strict-location "/models/.incoming/$1"
  must "$1 could not be put in its place; check: kubectl -n dwcp-ml exec bundle-store -- ls -l /models" \
    "${inside[@]}" sh -c "rm -rf '/models/$1' && mv '/models/.incoming/$1' '/models/$1'"
  dry || printf 'pvc://dwcp-models/%s\n' "$1"
}

step_canary() {
  last_run
  say "$MODEL $RUN, first deployment"
  roll_out "$RUN" Promoted
  start_traffic
  say "a good candidate, $RUN-again, over real traffic: it is to be promoted"
  roll_out "$RUN-again" Promoted
  say "a bad candidate, $RUN-broken, predicts no number above 100 Mbit/s: it has to be rolled back"
  roll_out "$RUN-broken" RolledBack
  check_stable "$RUN-again"
  report
}

# roll_out VERSION PHASE: make it the candidate, and watch until it has come to that end.
roll_out() {
  local file=$WORK/rollout-$1.yaml
  must "the ModelRollout of $1 could not be written; the last lines of $LOG say why." \
    "$BIN/python" -m tests.kind.bundles rollout --bundle "$WORK/bundles/$MODEL/$1" --output "$file"
  must "the ModelRollout of $1 was rejected; check: kubectl apply --server-side -f $file" \
    "${K[@]}" apply --server-side --force-conflicts -f "$file"
  watch_rollout "$1" "$2"
}

# watch_rollout VERSION PHASE: print each change; the other end, or no end for ROLLOUT_SECONDS seconds, is a failure.
watch_rollout() {
  local said='' now phase left=$((ROLLOUT_SECONDS / (PAUSE > 0 ? PAUSE : 1)))
  local path='jsonpath={.status.candidate.version} {.status.phase} {.status.livePercent} % live; {.status.reason}'
  while [ "$left" -gt 0 ]; do
    left=$((left - 1))
    now=$(output_of "$1 $2" "${K[@]}" get modelrollout "$ROLLOUT" -n dwcp-ml -o "$path") || now=
    dry || [ "$now" = "$said" ] || printf '%s\n' "$now"
    said=$now
    phase=${now#* }
    if [ "${now%% *}" = "$1" ]; then
      case "${phase%% *}" in
        "$2") return 0 ;;
        Promoted | RolledBack) fail "$1 ended as ${phase%% *}, and $2 was expected; check: kubectl -n dwcp-ml describe modelrollout $ROLLOUT" ;;
      esac
    fi
    sleep "$PAUSE"
  done
  fail "$1 did not come to an end in $((ROLLOUT_SECONDS / 60)) minutes; check: kubectl -n dwcp-ml describe modelrollout,inferenceservice"
}

start_traffic() {
  GATEWAY=$(output_of 192.0.2.1 "${K[@]}" get service -n envoy-gateway-system \
    -l gateway.envoyproxy.io/owning-gateway-name=kserve-ingress-gateway -o 'jsonpath={.items[0].spec.clusterIP}') || GATEWAY=
  [ -n "$GATEWAY" ] || fail "the gateway has no Service; check: kubectl -n envoy-gateway-system get pods,services"
  say "100 requests a second through the gateway, $GATEWAY"
  apply_ours "the traffic could not be made; check: kubectl -n dwcp-ml-traffic get all" traffic.yaml
  run "${K[@]}" delete configmap traffic -n dwcp-ml-traffic --ignore-not-found || true
  must "the traffic's script could not be stored; check: kubectl -n dwcp-ml-traffic get cm" \
    "${K[@]}" create configmap traffic -n dwcp-ml-traffic --from-file="$HERE/traffic.py"
  must "no response came through the gateway in 5 minutes; check: kubectl -n dwcp-ml-traffic logs deploy/traffic; kubectl -n dwcp-ml describe httproute" \
    "${K[@]}" rollout status deployment/traffic -n dwcp-ml-traffic --timeout=300s
}

# check_stable VERSION: what KServe serves now is that version alone.
check_stable() {
  local live
  live=$(output_of "pvc://dwcp-models/$MODEL/$1 " "${K[@]}" get inferenceservice "$ROLLOUT" -n dwcp-ml \
    -o 'jsonpath={.spec.predictor.model.storageUri} {.spec.canary[*].predictor.name}') || live=
  [ "$live" = "pvc://dwcp-models/$MODEL/$1 " ] ||
    fail "$1 alone was to be live, and the InferenceService says '$live'; check: kubectl -n dwcp-ml describe inferenceservice"
}

report() {
  say "what was seen"
  run_with_output "${K[@]}" get modelrollouts,inferenceservices,pods -n dwcp-ml || true
  run_with_output "${K[@]}" get httproutes -n dwcp-ml -o \
    'jsonpath={range .items[*]}{.metadata.name}{range .spec.rules[0].backendRefs[*]} {.name}={.weight}{end}{"\n"}{end}' || true
  run_with_output "${K[@]}" get events -n dwcp-ml --field-selector involvedObject.kind=ModelRollout --sort-by=.lastTimestamp || true
  run_with_output "${K[@]}" logs deployment/traffic -n dwcp-ml-traffic --tail=12 || true
}
