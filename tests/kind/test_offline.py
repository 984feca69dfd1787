"""What ``tests/kind/offline`` is made of, without root and without a cluster."""

import base64
import hashlib
import json
import os
import signal
import tarfile
import threading

import pytest
import yaml
from cryptography import x509

from tests.cluster.certificates import Authority
from tests.kind.offline import __main__ as offline
from tests.kind.offline import archives, groups, knative, runc, site
from tests.kind.offline.namespaces import Namespaces


def test_an_archive_names_its_images_first_and_holds_a_shared_layer_once(tmp_path):
    (tmp_path / "program").write_text("a program")
    lowest = archives.layer(tmp_path / "a.tar", [("bin/program", tmp_path / "program")])
    upper = archives.layer(tmp_path / "b.tar", [("bin/other", tmp_path / "program")])
    images = [
        archives.image("example/one:1", [lowest], ["/bin/program"], "65532:65532"),
        archives.image("example/two:2", [lowest, upper], ["/bin/other"]),
    ]
    archives.archive(tmp_path / "images.tar", images)
    with tarfile.open(tmp_path / "images.tar") as tar:
        names = tar.getnames()
        read = {name: tar.extractfile(name).read() for name in names}
    assert names[0] == "repositories"
    assert len(names) == len(set(names)) == 2 + 2 + 2
    for one in json.loads(read["manifest.json"]):
        config = json.loads(read[one["Config"]])
        digests = [f"sha256:{hashlib.sha256(read[path]).hexdigest()}" for path in one["Layers"]]
        assert config["rootfs"]["diff_ids"] == digests
    assert json.loads(read["repositories"]) == {
        "example/one": {"1": "0"},
        "example/two": {"2": "0"},
    }


@pytest.mark.parametrize(
    ("words", "file", "inside"),
    [
        (["create", "--bundle", "{}", "x"], "config.json", "process"),
        (["exec", "--process", "{}/process.json", "x"], "process.json", None),
    ],
)
@pytest.mark.parametrize("have", [True, False])
def test_a_container_is_not_given_a_capability_that_is_not_there(
    monkeypatch, tmp_path, words, file, inside, have
):
    process = {"capabilities": {"bounding": ["CAP_CHOWN", runc.MISSING], "inheritable": []}}
    (tmp_path / file).write_text(json.dumps({inside: process} if inside else process))
    called = []
    monkeypatch.setattr(runc, "_have", lambda: have)
    monkeypatch.setattr(runc.os, "execvp", lambda *call: called.append(call))
    words = [one.format(tmp_path) for one in words]
    runc.main(words)
    assert called == [("runc", ["runc", *words])]
    found = json.loads((tmp_path / file).read_text())
    bounding = (found[inside] if inside else found)["capabilities"]["bounding"]
    assert bounding == (["CAP_CHOWN", runc.MISSING] if have else ["CAP_CHOWN"])


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "certificates")


def test_a_certificate_becomes_the_secret_that_cert_manager_would_make(authority):
    names = ["webhook.kserve.svc", "webhook"]
    document = {
        "kind": "Certificate", "metadata": {"name": "serving-cert", "namespace": "kserve"},
        "spec": {"secretName": "webhook-cert", "dnsNames": names},
    }  # fmt: skip
    secret = site.changed(document, authority, "bundle")
    assert (secret["kind"], secret["metadata"]["name"]) == ("Secret", "webhook-cert")
    pem = base64.b64decode(secret["data"]["tls.crt"])
    extension = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert extension.value.get_values_for_type(x509.DNSName) == names
    assert site.changed({"kind": "Issuer", "metadata": {"name": "own"}}, authority, "") is None


def test_only_the_webhooks_that_cert_manager_would_fill_get_the_authority(authority):
    def webhook(annotations):
        document = {
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "one", "annotations": annotations},
            "webhooks": [{"clientConfig": {"service": {"name": "webhook"}}}],
        }
        return site.changed(document, authority, "bundle")["webhooks"][0]["clientConfig"]

    assert webhook({site.INJECT: "kserve/serving-cert"})["caBundle"] == "bundle"
    assert "caBundle" not in webhook({})


def test_a_controller_that_is_not_built_here_has_no_pods_and_no_image_is_pulled(authority):
    def deployment(name):
        spec = {"template": {"spec": {"containers": [{"imagePullPolicy": "Always"}]}}}
        document = {"kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        return site.changed(document, authority, "")["spec"]

    ours, other = deployment("kserve-controller-manager"), deployment("llmisvc-controller-manager")
    assert "replicas" not in ours
    assert other["replicas"] == 0
    for one in (ours, other):
        assert one["template"]["spec"]["containers"][0]["imagePullPolicy"] == "IfNotPresent"


def test_knatives_manifests_name_images_of_this_machine_and_small_requests(tmp_path):
    image = "dwcp-ml-test-knative-queue:local"
    container = {"image": "ko://knative.dev/serving/cmd/queue", "resources": {"limits": "all"}}
    pod = {"spec": {"containers": [container]}}
    documents = [
        {"kind": "Deployment", "metadata": {"labels": {"version": "devel"}},
         "spec": {"template": pod}},
        {"kind": "ConfigMap", "data": {"queue-sidecar-image": container["image"]}},
    ]  # fmt: skip
    paths = [tmp_path / f"{number}.yaml" for number in range(2)]
    for path, document in zip(paths, documents, strict=True):
        path.write_text(yaml.safe_dump(document))
    deployment, settings = yaml.safe_load_all(knative.text_of(paths, "v1.2.3"))
    (found,) = deployment["spec"]["template"]["spec"]["containers"]
    assert found["image"] == settings["data"]["queue-sidecar-image"] == image
    assert image in knative.images().values()
    assert found["resources"] == {"limits": "all", "requests": knative.REQUESTS}
    assert deployment["metadata"]["labels"]["version"] == "1.2.3"


def test_the_end_of_namespaces_that_are_not_there_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(groups, "_ROOT", tmp_path)
    (tmp_path / "cpu").mkdir()
    monkeypatch.setattr(groups, "_SHARES", "8192")
    groups.make()
    (tmp_path / "cpu" / groups.NAME / "below").mkdir()
    assert Namespaces(tmp_path / "work", tmp_path / "store").end() == []
    assert not (tmp_path / "cpu" / groups.NAME).exists()


def test_after_ctrl_c_the_script_removes_its_cluster_before_the_namespaces_end(
    tmp_path, monkeypatch
):
    """The process that enters the namespaces ends at once, and the script in them goes on.

    With SIGTERM, which takes the same way: SIGINT is ignored by what a shell has in the background.
    """
    removed, ended = tmp_path / "removed", []

    class Space:
        def words(self, *_command, directory):
            return ["bash", "-c", f"(trap '' TERM; sleep 1; touch {removed}) & exec sleep 30"]

    monkeypatch.setattr(offline, "_down", lambda _space: ended.append(removed.exists()))
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        main = threading.main_thread().ident
        threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGTERM]).start()
        code = offline._steps(Space(), ["cluster"], dict(os.environ))
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGTERM, before[1])
    assert code == 128 + signal.SIGTERM
    assert ended == [True]
