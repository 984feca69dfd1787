"""What docs/production.md has a person do by hand does what it says, on KServe's real controller.

A rollout is reconciled up to a share; then nothing reconciles any more, as when the operator is
dead, and the page's commands are pasted.
"""

import re
import time

import pytest

from dwcp_ml.kube.api import INFERENCE_SERVICE
from tests.cluster.build import ROOT
from tests.cluster.operator.in_process import ClusterScenario
from tests.cluster.operator.installed import SYSTEM, documents, path_of, service
from tests.cluster.operator.page import kubectl_on_path
from tests.cluster.processes import eventually
from tests.docs.pages import blocks_of
from tests.docs.pasting import Pasted
from tests.operator.fake_servers import NAME, digest_of
from tests.operator.scenario import digest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

PAGE = ROOT / "docs/production.md"
_BETWEEN = 0.03
_DEPLOYMENT = f"/apis/apps/v1/namespaces/{SYSTEM}/deployments"


def blocks(heading):
    return [block.text for block in blocks_of(PAGE, "bash") if block.heading == heading]


@pytest.fixture
def shell(local_cluster, installed, namespace, tmp_path):
    """A shell with the page's names; the operator's Deployment is there, for the page to scale."""
    (deployment,) = [
        one for one in documents("base/operator.yaml") if one["kind"] == "Deployment"
    ]  # fmt: skip
    local_cluster.rest.apply(f"{_DEPLOYMENT}/{deployment['metadata']['name']}", deployment)
    with Pasted(tmp_path, tmp_path, PATH=kubectl_on_path(local_cluster, tmp_path)) as found:
        found.paste(f"NS={namespace} NAME={NAME}\n")
        yield found
    local_cluster.rest.delete(f"{_DEPLOYMENT}/{deployment['metadata']['name']}")


def at(share, local_cluster, namespace, mode="Standard"):
    """Return a rollout whose candidate has this share."""
    # A step of some reconciliations: the one that first sees the share must not go on to the next.
    play = ClusterScenario(local_cluster, namespace, first=True, mode=mode, dwell=3)
    play.rest.create(path_of(INFERENCE_SERVICE, namespace), service(namespace, 1, mode))
    eventually(play._is_ready, 60.0, alive=local_cluster.check)
    play.fleet.pass_time(100.0)

    def there():
        play.reconcile()
        return play.fleet.routed().get(digest(2)) == share

    eventually(there, 60.0, every=_BETWEEN, alive=local_cluster.check)
    return play


def weights(text):
    """Return line -> what it names -> its weight, of what the page's commands print."""
    lines = [line for line in text.splitlines() if "=" in line]
    return [dict(re.findall(r"(\S+)=(\d+)", line)) for line in lines]


def until(question, paste, seconds=20.0):
    """Ask again, as the page says, until an answer is as it must be; return the answer."""
    ends = time.monotonic() + seconds
    while True:
        answer = weights(paste())
        if answer and question(answer):
            return answer
        assert time.monotonic() < ends, answer
        time.sleep(0.2)


def serves(play, number):
    """Return whether every pod that is there was made for a version."""
    path = f"/api/v1/namespaces/{play.namespace}/pods"
    found = [one["metadata"]["annotations"] for one in play.rest.get(path)["items"]]
    return bool(found) and all(one["ml.dwcp.io/version"] == f"v{number}" for one in found)


def finish(play):
    """Let the operator come back; return what it leaves."""
    play.restart()
    return play.play()


def test_standard_mode_with_the_operator_dead(local_cluster, shell, namespace):
    play = at(50, local_cluster, namespace)
    told, silenced, _ = blocks("With the operator dead")
    shell.paste(told)
    change, ask = silenced.splitlines()
    shell.paste(change)
    routes = until(
        lambda found: len(found) == 2 and all("50" not in one.values() for one in found),
        lambda: shell.paste(ask),
    )
    for one in routes:
        assert sorted(one.values()) in (["0", "100"], ["100"], ["1"]), routes
    phase, live, beside, _ = finish(play)
    assert (phase, live, beside) == ("RolledBack", digest(1), [])


def test_knative_mode_with_the_operator_dead(local_cluster, shell, namespace):
    play = at(50, local_cluster, namespace, mode="Knative")
    told, _, silenced = blocks("With the operator dead")
    shell.paste(told)
    change, ask = silenced.splitlines()
    shell.paste(change)

    def is_silent(lines):
        return {share for one in lines for share in one.values()} == {"0", "100"}

    lines = until(is_silent, lambda: shell.paste(ask))
    shares = {name: share for one in lines for name, share in one.items()}
    assert shares[max(shares)] == "0", "the newest revision has nothing"
    assert finish(play)[:2] == ("RolledBack", digest(1))


@pytest.mark.parametrize("mode", ["Standard", "Knative"])
def test_after_it_was_promoted(local_cluster, shell, namespace, mode):
    play = at(100, local_cluster, namespace, mode)
    assert play.play()[:2] == ("Promoted", digest(2))
    (back,) = blocks("After it was promoted")
    shell.paste(back)

    def is_back():
        found = play.service
        assert digest_of(found["spec"]["predictor"]) == digest(1)
        play.fleet.pass_time(1.0)
        is_alone = mode == "Knative" or serves(play, 1)  # a revision keeps its pods for a while
        return set(play.fleet.routed()) == {digest(1)} and play._is_ready() and is_alone

    eventually(is_back, 60.0, every=0.2, alive=local_cluster.check)
    put_back = play.service["spec"]
    for _ in range(3):
        play.reconcile(300.0)
    assert play.service["spec"] == put_back, "the operator writes nothing once a rollout has ended"


def test_with_the_operator_alive(local_cluster, shell, namespace):
    play = at(50, local_cluster, namespace)
    (alive,) = blocks("With the operator alive")
    told, *shown = alive.splitlines(keepends=True)
    shell.paste(told)
    play.play()
    assert "RolledBack" in shell.paste("".join(shown))


_NOT_HERE = (
    "logs", "top", "run probe", "port-forward", "diff", "describe pods", "gatewayclass",
    "-n kserve", "version",
)  # fmt: skip
"""What needs a container, a gateway's controller or KServe in pods; a kubectl that was built from
its sources does not know its version."""


def asked():
    """Return the questions of both pages: each line of a block, each command of a table."""
    on_call = ROOT / "docs/on-call.md"
    lines = [line for block in blocks_of(on_call, "bash") for line in block.text.splitlines()]
    for page in (on_call, PAGE):
        lines += re.findall(
            r"^\|[^`\n]*`(kubectl (?:\\\||[^`|])+)`", page.read_text(), re.MULTILINE
        )
    named = (re.sub(r"\bNAMESPACE\b(?!:)", "$NS", line) for line in lines)
    named = (re.sub(r'(?<![$"\w:])NAME\b(?!:)', "$NAME", line) for line in named)
    changes = ("patch", "wait", "rollout", "delete")
    questions = {line for line in named if line.split()[1] not in changes}
    return sorted(one for one in questions if not any(word in one for word in _NOT_HERE))


def test_every_question_of_the_two_pages_has_an_answer(local_cluster, shell, namespace):
    """A field or a flag that is not there would be found out at night."""
    play = at(50, local_cluster, namespace)
    lease = f"/apis/coordination.k8s.io/v1/namespaces/{SYSTEM}/leases"
    spec = {"holderIdentity": "somebody"}
    if local_cluster.rest.find(f"{lease}/dwcp-ml-operator") is None:
        local_cluster.rest.create(lease, {"metadata": {"name": "dwcp-ml-operator"}, "spec": spec})
    else:  # of an operator that gave it back when it ended
        local_cluster.rest.merge(f"{lease}/dwcp-ml-operator", {"spec": spec})
    rights = ROOT / "manifests/base/pipeline-rbac.yaml"
    shell.paste(f"kubectl apply --server-side -n {SYSTEM} -f {rights}\n")
    questions = asked()
    assert len(questions) >= 10, questions
    # Who may not write a status gets "no", for which kubectl has an exit code of its own.
    refused = [one for one in questions if "modelrollouts/status" in one]
    answers = {one: shell.paste(one + " || true" * (one in refused) + "\n") for one in questions}
    silent = [one for one, answer in answers.items() if not answer.strip()]
    assert all("secur" in one or "STALLED" in one for one in silent), silent
    (stalled,) = [answer for one, answer in answers.items() if "STALLED" in one]
    assert NAME in stalled
    assert [answers[one] for one in questions if "can-i" in one and one not in refused] == [
        "yes\n"
    ] * 2
    assert [answers[one] for one in refused] == ["no\n"]
    assert play.phase == "Progressing"


def test_the_overlay_of_the_page_builds_and_is_taken(local_cluster, installed, tmp_path):
    """With the checkout beside it under the name that the page has."""
    overlay = next(
        block for block in blocks_of(PAGE, "yaml") if "kind: Kustomization" in block.text
    )
    place = tmp_path / "production"
    place.mkdir()
    (place / "kustomization.yaml").write_text(overlay.text)
    (tmp_path / "dwcp-ml").symlink_to(ROOT)
    with Pasted(tmp_path, tmp_path, PATH=kubectl_on_path(local_cluster, tmp_path)) as shell:
        built = shell.paste("kubectl kustomize production\n")
    assert "image: registry.example/team/dwcp-ml-operator@sha256:9f86" in built
    assert "image: registry.example/team/dwcp-ml-server@sha256:6030" in built
    assert "--prometheus=http://prometheus-operated.monitoring:9090" in built
