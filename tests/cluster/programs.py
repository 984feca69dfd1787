"""What the clusters of the tests are made of: programs, objects and charts of pinned modules."""

from dataclasses import dataclass

PROGRAMS = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "kubernetes": {
        "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
        "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    },
    "kwok": {"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
    "kserve": {"kserve-manager": "ml.dwcp.io/dwcpml/tests/cluster/kserve"},
    "kstatus": {"kstatus": "ml.dwcp.io/dwcpml/tests/cluster/kstatus"},
    "gateway": {},
    "node": {
        "kubeadm": "k8s.io/kubernetes/cmd/kubeadm",
        "kubelet": "k8s.io/kubernetes/cmd/kubelet",
        "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
        "pause": "ml.dwcp.io/dwcpml/tests/cluster/node/pause",
    },
    "envoy-gateway": {
        "envoy-gateway": "github.com/envoyproxy/gateway/cmd/envoy-gateway",
        "helm": "helm.sh/helm/v3/cmd/helm",
    },
    "knative": {
        "knative-activator": "knative.dev/serving/cmd/activator",
        "knative-autoscaler": "knative.dev/serving/cmd/autoscaler",
        "knative-controller": "knative.dev/serving/cmd/controller",
        "knative-queue": "knative.dev/serving/cmd/queue",
        "knative-webhook": "knative.dev/serving/cmd/webhook",
        "knative-gateway-controller": "knative.dev/net-gateway-api/cmd/controller",
        "knative-gateway-webhook": "knative.dev/net-gateway-api/cmd/webhook",
    },
    "knative-manager": {
        "knative-manager": "ml.dwcp.io/dwcpml/tests/cluster/knative/manager",
    },
    "knative-networking": {},
    "knative-caching": {},
    "h2spec": {"h2spec": "github.com/summerwind/h2spec/cmd/h2spec"},
}
"""Module of ours -> program -> the package that it is built from."""

PINNED_BY = dict.fromkeys(("knative-manager", "knative-networking", "knative-caching"), "knative")
"""Module of ours -> the one whose pins it has, where it has none of its own."""

USUAL = tuple(one for one in PROGRAMS if one not in ("node", "envoy-gateway", "knative", "h2spec"))
"""What a cluster with a simulated node needs; kind needs more (``tests/kind/offline``)."""

KUBERNETES_VERSION = "v1.36.3"
OF_KUBERNETES = ("kubernetes", "node")
"""Modules whose programs are told their version: kubeadm rejects a node that has none."""


@dataclass(frozen=True)
class Release:
    """Programs of another project, built in a copy of its module with its own pins.

    Parameters
    ----------
    module, version, checksum
        As ``go mod download`` names them; the checksum covers the release's ``go.sum``.
    programs
        Name -> package, relative to the module.
    tags
        Go's build tags.
    variable
        The variable that is set to the version.
    """

    module: str
    version: str
    checksum: str
    programs: dict[str, str]
    tags: str = ""
    variable: str = ""


RELEASES = {
    "kind": Release(
        "sigs.k8s.io/kind", "v0.33.0", "h1:AjvDv3vOygb/VKLVQW87lfktIBzkxR8Ump9DjxC8+Lk=",
        {"kind": "."},
    ),
    "containerd": Release(
        "github.com/containerd/containerd/v2", "v2.3.4",
        "h1:c2PJo/9UGVdiiw8SwrxuLxWGY+9b3jQ6Xp9zntneIvI=",
        {one: f"./cmd/{one}" for one in ("containerd", "containerd-shim-runc-v2", "ctr")},
        "no_btrfs no_devmapper no_zfs", "github.com/containerd/containerd/v2/version.Version",
    ),
    "crictl": Release(
        "sigs.k8s.io/cri-tools", "v1.36.0", "h1:Xt+LLvBVH1Fnp/AR2EyHApyWS/88y2KlWjlDc2HR+aw=",
        {"crictl": "./cmd/crictl"}, variable="sigs.k8s.io/cri-tools/pkg/version.Version",
    ),
    "coredns": Release(
        "github.com/coredns/coredns", "v1.14.2", "h1:L6ECLwm4Fjg7NJamtGBFDBjk/uqvCJjfgAEhrxh5zJo=",
        {"coredns": "."},
    ),
    "local-path": Release(
        "github.com/rancher/local-path-provisioner", "v0.0.30",
        "h1:OkiuofkCSscddl7tma/B9Ox1wu+JEVSrP7IcZI65Ggo=", {"local-path-provisioner": "."},
        variable="main.VERSION",
    ),
    "kube-rbac-proxy": Release(  # beside KServe's manager in its own manifest
        "github.com/brancz/kube-rbac-proxy", "v0.18.0",
        "h1:mceEQjQIkVeWkZyYMRK7i5LaA4bLm3+skiH14hmVcR0=",
        {"kube-rbac-proxy": "./cmd/kube-rbac-proxy"},
    ),
    "kube-router": Release(
        "github.com/cloudnativelabs/kube-router/v2", "v2.1.0",
        "h1:xWsptKtmZ44L+NjwFKoFAFlVdxCz8fka9A/eYJe95Ok=", {"kube-router": "./cmd/kube-router"},
    ),
    "versitygw": Release(
        "github.com/versity/versitygw", "v1.8.0", "h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=",
        {"versitygw": "./cmd/versitygw"},
    ),
}  # fmt: skip
"""Of a cluster of kind, what Kubernetes itself does not bring; versitygw is an S3 server."""

FILES = {
    "kwok": (
        "sigs.k8s.io/kwok",
        ["kustomize/stage/node/fast/node-initialize.yaml",
         "kustomize/stage/node/heartbeat-with-lease/node-heartbeat-with-lease.yaml",
         "kustomize/stage/pod/fast/pod-ready.yaml",
         "kustomize/stage/pod/fast/pod-complete.yaml",
         "kustomize/stage/pod/fast/pod-delete.yaml"],
    ),
    "gateway": (
        "sigs.k8s.io/gateway-api",
        ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
         "config/crd/standard/gateway.networking.k8s.io_gateways.yaml",
         "config/crd/standard/gateway.networking.k8s.io_gatewayclasses.yaml"],
    ),
    "envoy-gateway": (  # which reads all of the standard channel
        "sigs.k8s.io/gateway-api",
        ["config/crd/standard/gateway.networking.k8s.io_backendtlspolicies.yaml",
         "config/crd/standard/gateway.networking.k8s.io_grpcroutes.yaml",
         "config/crd/standard/gateway.networking.k8s.io_listenersets.yaml",
         "config/crd/standard/gateway.networking.k8s.io_referencegrants.yaml",
         "config/crd/standard/gateway.networking.k8s.io_tlsroutes.yaml"],
    ),
    "kserve": (
        "github.com/kserve/kserve",
        ["config/crd/full/serving.kserve.io_inferenceservices.yaml",
         "config/crd/full/serving.kserve.io_servingruntimes.yaml",
         "config/crd/full/serving.kserve.io_clusterservingruntimes.yaml",
         "config/crd/full/serving.kserve.io_trainedmodels.yaml",
         "config/crd/full/serving.kserve.io_inferencegraphs.yaml",
         "config/crd/full/clusterstoragecontainer/"
         "serving.kserve.io_clusterstoragecontainers.yaml",
         "test/crds/knative_service.yaml",
         "config/storagecontainers/default.yaml",
         "config/configmap/inferenceservice.yaml",
         "config/webhook/manifests.yaml"],
    ),
    "knative-manager": (
        "knative.dev/serving",
        ["config/core/300-resources/configuration.yaml",
         "config/core/300-resources/domain-mapping.yaml",
         "config/core/300-resources/metric.yaml",
         "config/core/300-resources/podautoscaler.yaml",
         "config/core/300-resources/revision.yaml",
         "config/core/300-resources/route.yaml",
         "config/core/300-resources/service.yaml",
         "config/core/configmaps/autoscaler.yaml",
         "config/core/configmaps/defaults.yaml",
         "config/core/configmaps/deployment.yaml",
         "config/core/configmaps/domain.yaml",
         "config/core/configmaps/features.yaml",
         "config/core/configmaps/gc.yaml",
         "config/core/configmaps/logging.yaml",
         "config/core/configmaps/observability.yaml",
         "config/core/webhooks/defaulting.yaml",
         "config/core/webhooks/resource-validation.yaml"],
    ),
    "knative-networking": (
        "knative.dev/networking",
        ["config/certificate.yaml",
         "config/config-network.yaml",
         "config/domain-claim.yaml",
         "config/ingress.yaml",
         "config/serverlessservice.yaml"],
    ),
    "knative-caching": ("knative.dev/caching", ["config/image.yaml"]),
}  # fmt: skip
"""Module of ours -> the module that holds Kubernetes objects, and which of its files are taken."""

CHARTS = {"envoy-gateway": ("github.com/envoyproxy/gateway", "charts/gateway-helm")}
"""Module of ours -> the module that holds a Helm chart, and the chart's directory."""
