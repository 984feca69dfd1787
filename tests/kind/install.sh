# shellcheck shell=bash disable=SC2034
# The steps that make a cluster and install on it what this project builds upon. Sourced by run.sh.

step_tools() {
  say "what this needs is here, with kind $KIND_VERSION"
  local one missing='' git=git
  [ -z "$OFFLINE" ] || git=
  for one in docker kind kubectl make tar "$BIN/python" $git; do
    command -v "$one" >/dev/null 2>&1 || missing="$missing $one"
  done
  if [ -n "$missing" ] && dry; then
    printf 'not on this machine:%s\n' "$missing"
  elif [ -n "$missing" ]; then
    fail "not on this machine:$missing; docs/kind.md says where to get each."
  fi
  must "docker does not respond: start it, or check: docker info" docker info
  local found
  found=$(output_of "$KIND_VERSION" kind version) || found=
  case "$found" in
    *"$KIND_VERSION"*) ;;
    *) printf 'kind is %s; this was written for %s\n' "${found:-unknown}" "$KIND_VERSION" ;;
  esac
  local instances
  instances=$(output_of 512 cat /proc/sys/fs/inotify/max_user_instances) || instances=
  if [ "${instances:-512}" -lt 512 ]; then
    printf 'fs.inotify.max_user_instances is %s; kind recommends 512: sysctl fs.inotify.max_user_instances=512\n' "$instances"
  fi
  local machine
  machine=$(output_of '8 17179869184' docker info --format '{{.NCPU}} {{.MemTotal}}') || machine=
  case "$machine" in
    [0-9]*' '[0-9]*)
      if [ "${machine% *}" -lt 4 ] || [ "${machine#* }" -lt 11000000000 ]; then
        printf 'docker has %s CPUs and %s bytes of memory: with less than 4 and 11 GB this is slow\n' \
          "${machine% *}" "${machine#* }"
      fi
      ;;
  esac
}

step_cluster() {
  if [ -n "$GIVEN" ]; then
    say "the cluster of $KUBECONFIG_FILE is taken as it is, and stays"
    must "no cluster responds at $KUBECONFIG_FILE; check: kubectl get nodes" "${K[@]}" get nodes
    return
  fi
  say "a cluster of one node, $CLUSTER, ${KIND_NODE_IMAGE%@*}"
  local there
  there=$(output_of '' kind get clusters) || there=
  if printf '%s\n' "$there" | grep -qx "$CLUSTER"; then
    fail "there is a cluster $CLUSTER already: kind delete cluster --name $CLUSTER, or name the steps to run on it."
  fi
  MADE=yes
  dry || render cluster.yaml >"$WORK/cluster.yaml"
  # --retain: the logs of a node that does not start are in its container.
  must "kind could not make a cluster of the image ${KIND_NODE_IMAGE%@*}; check: docker images, $WORK/logs, and docs/kind.md" \
    kind create cluster --retain --name "$CLUSTER" --image "$KIND_NODE_IMAGE" --config "$WORK/cluster.yaml" \
    --kubeconfig "$KUBECONFIG_FILE"
  must "the node was not ready within 180 s; check: kubectl describe node" \
    "${K[@]}" wait node --all --for=condition=Ready --timeout=180s
  # Of an earlier cluster; its files belong to the users of pods, and only the node may remove them.
  must "what an earlier run left in $VOLUMES could not be removed; check: docker ps" \
    docker exec "$CLUSTER-control-plane" find /volumes -mindepth 1 -delete
  [ -z "$OFFLINE" ] || step_network_policies
}

# kind's own network enforces network policies; that of the node made of packages does not.
step_network_policies() {
  say "kube-router, which enforces the network policies"
  dry || sed "s|@IMAGE@|$KUBE_ROUTER_IMAGE|" "$HERE/offline/kube-router.yaml" >"$WORK/kube-router.yaml"
  must "kube-router could not be installed; check: kubectl -n kube-system get pods" \
    "${K[@]}" apply --server-side -f "$WORK/kube-router.yaml"
  must "kube-router was not available within 120 s; check: kubectl -n kube-system logs ds/kube-router" \
    "${K[@]}" rollout status daemonset/kube-router -n kube-system --timeout=120s
}

step_images() {
  say "the project's images $VERSION, built and loaded"
  [ -z "$GIVEN" ] || fail "the step images is for clusters of kind; bring the images onto this one's nodes yourself."
  must "the images could not be built; check: make images" make --no-print-directory images ENGINE=docker REGISTRY=
  # In one call: they share layers, the trainer's two names all of them.
  # shellcheck disable=SC2086
  must "the images could not be loaded; the last lines of $LOG say which; check: docker system df, the disk may be full" \
    kind load docker-image dwcp-ml-{trainer,trainer-python,server,operator}:"$VERSION" ${OTHER_IMAGES:-} --name "$CLUSTER"
}

step_gateway_api() {
  say "Gateway API $GATEWAY_API_VERSION, the standard channel"
  must_again "the Gateway API could not be installed; does github.com respond?" "${K[@]}" apply --server-side \
    -f "$GITHUB/kubernetes-sigs/gateway-api/releases/download/$GATEWAY_API_VERSION/standard-install.yaml"
}

step_cert_manager() {
  if [ -n "$OFFLINE" ]; then
    say "a stand-in: the certificates of KServe's webhooks are in its manifest"
    return
  fi
  say "cert-manager $CERT_MANAGER_VERSION, for the certificates of KServe's webhooks"
  must_again "cert-manager could not be installed; does github.com respond?" "${K[@]}" apply --server-side \
    -f "$GITHUB/cert-manager/cert-manager/releases/download/$CERT_MANAGER_VERSION/cert-manager.yaml"
  local one
  for one in cert-manager cert-manager-cainjector cert-manager-webhook; do
    available cert-manager 300 "deployment/$one"
  done
}

step_envoy_gateway() {
  say "Envoy Gateway $ENVOY_GATEWAY_VERSION"
  must_again "Envoy Gateway could not be downloaded; does github.com respond?" \
    "$BIN/python" -m tests.kind.without_gateway_api \
    "$GITHUB/envoyproxy/gateway/releases/download/$ENVOY_GATEWAY_VERSION/install.yaml" "$WORK/envoy-gateway.yaml"
  must_again "Envoy Gateway could not be installed; check: kubectl get crd" \
    "${K[@]}" apply --server-side --force-conflicts -f "$WORK/envoy-gateway.yaml"
  available envoy-gateway-system 300 deployment/envoy-gateway
}

# Before KServe, which reads once, when it starts, whether there are Knative Services to watch.
step_knative() {
  say "Knative Serving $KNATIVE_VERSION, over the Gateway API"
  local base="$GITHUB/knative/serving/releases/download/knative-$KNATIVE_VERSION" one
  must_again "Knative's definitions could not be installed; does github.com respond?" \
    "${K[@]}" apply --server-side --force-conflicts -f "$base/serving-crds.yaml"
  must_again "Knative could not be installed; check: kubectl get crd" \
    "${K[@]}" apply --server-side --force-conflicts -f "$base/serving-core.yaml"
  must_again "Knative's part for the Gateway API could not be installed; does github.com respond?" \
    "${K[@]}" apply --server-side --force-conflicts \
    -f "$GITHUB/knative-extensions/net-gateway-api/releases/download/knative-$KNATIVE_GATEWAY_VERSION/net-gateway-api.yaml"
  for one in controller webhook autoscaler activator net-gateway-api-controller net-gateway-api-webhook; do
    available knative-serving 300 "deployment/$one"
  done
  apply_ours "Knative's settings could not be changed; check: kubectl -n knative-serving get cm" knative-settings.yaml
}

step_kserve() {
  say "KServe $KSERVE_VERSION in Standard mode, over the Gateway API${OFFLINE:+; a stand-in: the weights of 0.21}"
  # Its manifest makes no namespace since 0.17.
  dry || printf 'apiVersion: v1\nkind: Namespace\nmetadata:\n  name: kserve\n' >"$WORK/kserve-namespace.yaml"
  must_again "the namespace kserve could not be made; check: kubectl get namespaces" \
    "${K[@]}" apply --server-side -f "$WORK/kserve-namespace.yaml"
  must_again "KServe could not be installed; does github.com respond?" \
    "${K[@]}" apply --server-side --force-conflicts \
    -f "$GITHUB/kserve/kserve/releases/download/$KSERVE_VERSION/kserve.yaml"
  must_again "KServe's settings could not be changed; check: kubectl -n kserve get cm inferenceservice-config" \
    "${K[@]}" patch configmap inferenceservice-config -n kserve --type merge \
    --patch-file "$HERE/manifests/kserve-settings.yaml"
  must_again "KServe's storage initializer could not be changed; check: kubectl get clusterstoragecontainers" \
    "${K[@]}" patch clusterstoragecontainer default --type merge --patch-file "$HERE/manifests/kserve-storage.yaml"
  # It reads once, when it starts, whether there are HTTPRoutes to watch.
  must "KServe could not be restarted; check: kubectl -n kserve get deployments" \
    "${K[@]}" rollout restart deployment/kserve-controller-manager -n kserve
  available kserve 600 deployment/kserve-controller-manager
  apply_ours "the gateway could not be made; check: kubectl -n envoy-gateway-system logs deploy/envoy-gateway" \
    gateway.yaml
  [ -z "$OFFLINE" ] || must "the gateway's image could not be set; check: kubectl get envoyproxies -A" \
    "${K[@]}" patch envoyproxy kserve -n envoy-gateway-system --type merge -p "{\"spec\": {\"provider\": {\"kubernetes\": \
{\"envoyDeployment\": {\"container\": {\"image\": \"$ENVOY_IMAGE\"}}}}}}"
  must "Envoy Gateway did not take the gateway; check: kubectl -n kserve describe gateway" \
    "${K[@]}" wait gateway/kserve-ingress-gateway -n kserve --for=condition=Accepted --timeout=120s
}

step_cluster_tests() {
  say "the cluster tests that need no fake pods, on this cluster"
  # Before the operator comes: they make ModelRollouts of their own, and it would carry them out.
  run_with_output "$BIN/pytest" -q -n 0 -m cluster -p no:cacheprovider --kubeconfig "$KUBECONFIG_FILE" "${CLUSTER_TESTS[@]}" ||
    fail "the cluster tests failed on KServe $KSERVE_VERSION; they are above, and tests/cluster/README.md says what each shows."
}

step_kubeflow() {
  if [ -n "$OFFLINE" ]; then
    say "a stand-in: no archive has its server; the step train runs each step of the pipeline in a pod"
    return
  fi
  say "Kubeflow Pipelines $KUBEFLOW_PIPELINES_VERSION (git fetches its manifests)"
  local base="github.com/kubeflow/pipelines/manifests/kustomize"
  must_again "Kubeflow's definitions could not be installed; does github.com respond?" "${K[@]}" apply --server-side \
    -k "$base/cluster-scoped-resources?ref=$KUBEFLOW_PIPELINES_VERSION&timeout=5m"
  must "Kubeflow's definitions are not served; check: kubectl get crd" \
    "${K[@]}" wait crd/applications.app.k8s.io --for=condition=Established --timeout=60s
  must_again "Kubeflow Pipelines could not be installed; does github.com respond?" "${K[@]}" apply --server-side \
    -k "$base/env/platform-agnostic?ref=$KUBEFLOW_PIPELINES_VERSION&timeout=5m"
  local one
  for one in mysql seaweedfs metadata-grpc-deployment workflow-controller ml-pipeline ml-pipeline-ui; do
    available kubeflow 900 "deployment/$one"
  done
}

step_operator() {
  say "our definitions, the serving runtime and the operator"
  must_again "manifests/overlays/kind could not be applied; check: kubectl apply -k manifests/overlays/kind" \
    "${K[@]}" apply --server-side --force-conflicts -k "$ROOT/manifests/overlays/kind"
  available dwcp-ml 180 deployment/dwcp-ml-operator
}
