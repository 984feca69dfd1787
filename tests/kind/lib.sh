# shellcheck shell=bash disable=SC2034
# What the steps are made of: say, run, refuse with one sentence, wait, clean up. Sourced by run.sh.
# Plain enough for the bash 3.2 of macOS.

say() { printf '\n== %s: %s\n' "$STEP" "$1"; }

dry() { [ -n "${DRY_RUN:-}" ]; }

# show COMMAND...: as a line that could be pasted into a shell.
show() {
  printf '+'
  printf ' %q' "$@"
  printf '\n'
}

# run COMMAND...: into the log; in a dry run the command is shown, and that is all.
run() {
  if dry; then
    show "$@"
    return 0
  fi
  show "$@" >>"$LOG"
  "$@" >>"$LOG" 2>&1
}

# run_with_output COMMAND...: run a command and show its output, where that is worth watching.
run_with_output() {
  if dry; then
    show "$@"
    return 0
  fi
  show "$@" >>"$LOG"
  "$@"
}

# must SENTENCE COMMAND...: run it, or end with the sentence.
must() {
  local sentence=$1
  shift
  run "$@" || fail "$sentence"
}

# must_again SENTENCE COMMAND...: the same, tried five times; a kind that was just defined, and a
# webhook that was just started, need a moment.
must_again() {
  local sentence=$1 left=5
  shift
  until run "$@"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "$sentence"
    sleep "$PAUSE"
  done
}

# output_of PLACEHOLDER COMMAND...: what a command prints; in a dry run the placeholder.
output_of() {
  local placeholder=$1
  shift
  if dry; then
    show "$@" >&3
    printf '%s' "$placeholder"
    return 0
  fi
  "$@" 2>>"$LOG"
}

# fail SENTENCE: end here; the sentence becomes the last line, below what cleaning up says.
fail() {
  FAILED=$1
  exit 1
}

kubectl_() { kubectl --kubeconfig="$KUBECONFIG_FILE" "$@"; }

# The words before each kubectl command, so that a dry run shows them, too.
K=(kubectl --kubeconfig="$KUBECONFIG_FILE")

# render FILE: a manifest with what is of this machine or of this run in place, on standard output.
render() {
  sed -e "s|@VOLUMES@|$VOLUMES|g" -e "s|@GATEWAY_PORT@|$GATEWAY_PORT|g" \
    -e "s|@STORE_IMAGE@|${STORE_IMAGE:-}|g" -e "s|@STORE_KEY@|${STORE_KEY:-}|g" "$HERE/manifests/$1"
}

# apply_ours SENTENCE FILE: one of tests/kind/manifests, under a name of its own: what it leaves out
# of an object of another project stays as it is.
apply_ours() {
  local target=$WORK/$2
  dry || render "$2" >"$target"
  must_again "$1" "${K[@]}" apply --server-side --force-conflicts --field-manager=kind-test -f "$target"
}

# available NAMESPACE SECONDS KIND/NAME: wait for a Deployment, or end.
available() {
  must "$3 in $1 was not available within $2 s; check: kubectl -n $1 describe pods" \
    "${K[@]}" rollout status "$3" -n "$1" --timeout="$2s"
}

# serve_site: stands for the internet, at a port of the loopback, until the script ends.
serve_site() {
  GITHUB=http://127.0.0.1:$SITE_PORT
  dry && return
  "$BIN/python" -m http.server --bind 127.0.0.1 --directory "$SITE/files" "$SITE_PORT" >>"$LOG" 2>&1 3>&- &
  FORWARDS="$FORWARDS $!"
}

# live NAME FILE...: tests of tests/kind/live on the cluster; NAME says which in a failure.
live() {
  local name=$1
  shift
  KIND_TEST_KUBECONFIG=$KUBECONFIG_FILE KIND_TEST_VOLUMES=$VOLUMES KIND_TEST_VERSION=$RUN \
    KIND_TEST_GATEWAY=127.0.0.1:$GATEWAY_PORT \
    run_with_output "$BIN/pytest" -q -n 0 -m kind -p no:cacheprovider --durations=0 "$@" ||
    fail "$name failed; the tests are above, and kubectl -n dwcp-ml describe pods,modelrollouts says more."
}

# forward NAMESPACE SERVICE LOCAL REMOTE: a port of this machine that leads to a Service, until the
# script ends. A connection that breaks is made again.
forward() {
  if dry; then
    show "${K[@]}" port-forward -n "$1" "$2" "$3:$4"
    return 0
  fi
  (
    child=
    trap 'kill "$child" 2>/dev/null; exit 0' TERM
    while :; do
      # Not through the function: what is killed has to be kubectl itself, not a shell around it.
      "${K[@]}" port-forward -n "$1" "$2" "$3:$4" >>"$LOG" 2>&1 3>&- &
      child=$!
      wait "$child" || true
      sleep 1
    done
  ) &
  FORWARDS="$FORWARDS $!"
  local left=30
  until (exec 3<>"/dev/tcp/127.0.0.1/$3") 2>/dev/null; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "no way to $2 in $1 through port $3; is that port taken? $LOG"
    sleep "$PAUSE"
  done
}

stop_forwards() {
  local one
  for one in $FORWARDS; do
    kill "$one" 2>/dev/null || true
    wait "$one" 2>/dev/null || true
  done
  FORWARDS=
}

# explain: what a failure leaves to read: the logs of the node, and the end of the output.
explain() {
  local output='' disk="no space left on device"
  [ -z "$FAILED" ] || output=$(tail -n 5 "$LOG" | cut -c1-300 | sed 's/^/  | /')
  if [ -n "$MADE" ]; then
    mkdir -p "$WORK/logs"
    if run kind export logs "$WORK/logs" --name "$CLUSTER"; then
      kubectl_ get pods,events -A -o wide --request-timeout=10s >"$WORK/logs/pods-and-events.txt" 2>&1 || true
      printf 'the logs of the node and of all pods are in %s\n' "$WORK/logs"
      pending_pods
    fi
  fi
  [ -z "$output" ] || printf 'the last lines of the output:\n%s\n' "$output"
  if grep -rqi "$disk" "$LOG" "$WORK/logs" 2>/dev/null; then
    printf 'a disk is full, of the machine or of the node ("%s"): df -h, docker system df\n' "$disk"
  fi
}

# pending_pods: those that have not started, each with the word that Kubernetes has for it.
pending_pods() {
  local pods
  pods=$(kubectl_ get pods -A --field-selector=status.phase=Pending --request-timeout=10s 2>/dev/null) || return 0
  [ -z "$pods" ] || printf 'pods that have not started:\n%s\n' "$(printf '%s\n' "$pods" | head -n 12 | sed 's/^/  | /')"
}

# finish: whatever happened, leave nothing behind that this call has made, and say how it ended.
finish() {
  local code=$? ended=$STEP
  trap - EXIT INT TERM
  stop_forwards
  if [ "$code" -ne 0 ] && ! dry; then
    explain
  fi
  if [ -n "$MADE" ]; then
    if [ -n "${KEEP:-}" ]; then
      printf '\nThe cluster %s stays: export KUBECONFIG=%s; remove it: kind delete cluster --name %s\n' \
        "$CLUSTER" "$KUBECONFIG_FILE" "$CLUSTER"
    else
      STEP=remove
      trap '' INT TERM # a second Ctrl-C leaves no cluster behind either
      say "the cluster $CLUSTER goes"
      run kind delete cluster --name "$CLUSTER" --kubeconfig "$KUBECONFIG_FILE" ||
        printf 'kind-test: the cluster stays; remove it: kind delete cluster --name %s\n' "$CLUSTER" >&2
    fi
  fi
  if [ "$code" -ne 0 ]; then
    printf 'kind-test: %s (all output: %s)\n' \
      "${FAILED:-it was ended in the step $ended.}" "$LOG" >&2
  fi
  exit "$code"
}
