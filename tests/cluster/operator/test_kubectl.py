"""What a person sees with kubectl, and that docs/operator.md shows what kubectl really prints."""

import re
import subprocess

import pytest

from tests.cluster.build import ROOT
from tests.docs.pasting import alike_but_for
from tests.operator.fake_servers import NAME

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PAGE = ROOT / "docs" / "operator.md"
_BLOCK = re.compile(r"```text\n(\$ kubectl [^\n]*\n.*?)```", re.S)
_STATE = re.compile(r"  State:")
_DESCRIBE = f"$ kubectl describe modelrollout {NAME} | sed -n '/^Status/,$p' | grep -v ' State:'"
_usual = alike_but_for(
    (r"dwcp-[0-9a-f]{8}", "models"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-01-01T00:00:00Z"),
    (r"\b(\d+m)?\d+s\b", "9s"),
    (r"e-value [\d,.e]+", "e-value 99"),
    (r"stable [\d.]+ % of [\d,]+:", "stable 9 % of 99:"),
    (r"(Evidence|Value|Bound|Threshold|Samples|Exposed Requests): +[\d.e+-]+", r"\1: 9"),
    (r"[\d,]+ requests", "99 requests"),
    (r"\d+(\.\d+)? %", "9 %"),
    (r"(Resource Version:|Generation:|UID:)\s+\S+", r"\1  9"),
    (r"x\d+ over", "x9 over"),
    (r"evidence [\d,.]+", "evidence 99"),
    (r"[ \t]+", " "),
)


def alike(text):
    """Return a text without what is another at every run."""
    told, events, happened = _usual(text).strip().partition("\nEvents:\n")
    # Events of one second come in any order.
    return told + events + "\n".join(sorted(happened.splitlines()))


@pytest.fixture
def kubectl(cluster):
    def ask(*words):
        program = cluster.control_plane.built.program("kubectl")
        command = [program, f"--kubeconfig={cluster.kubeconfig}", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    return ask


@pytest.fixture
def ended(operator, told):
    story = told({"bad": {"bad_at": 5}})["bad"]
    story.until("RolledBack")
    return story


def test_kubectl_shows_the_step_its_time_and_why_the_candidate_was_rolled_back(ended, kubectl):
    listed = kubectl("get", "modelrollouts", "-n", ended.namespace)
    whole = kubectl("describe", "modelrollout", NAME, "-n", ended.namespace)
    _, _, status = whole.partition("\nStatus:\n")
    described = "\n".join(line for line in status.splitlines() if not _STATE.match(line))
    shown = dict(one.split("\n", 1) for one in _BLOCK.findall(PAGE.read_text()))
    found = {_DESCRIBE: alike("Status:\n" + described)}
    printed = f"{_DESCRIBE}\nStatus:\n{described}"
    assert {command: alike(text) for command, text in shown.items()} == found, printed
    columns, row = (line.split() for line in alike(listed).splitlines())
    assert columns[:5] == ["NAME", "PHASE", "STEP", "TARGET", "LIVE"]
    assert columns[5:] == ["SINCE", "CANDIDATE", "REASON", "AGE"]
    assert row[:5] == [NAME, "RolledBack", "0/5", "0", "0"]
    assert row[6:8] == ["v2", "TestFailed"]
