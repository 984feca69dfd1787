"""docs/tutorials/go-developer.md works as it is pasted, with four small graphs for the models."""

import sys

import pytest

from dwcp_ml.contract.models import MODELS
from dwcp_ml.training_run.go_client_check import find_client
from tests.cluster.processes import free_ports
from tests.docs.pages import ROOT, blocks_of
from tests.docs.pasting import Pasted, alike_but_for, paste_page
from tests.serving.bundles import make_bundle

pytestmark = [pytest.mark.go, pytest.mark.server, pytest.mark.timeout(600)]

PAGE = ROOT / "docs/tutorials/go-developer.md"
alike = alike_but_for(
    (r"-?\d+\.\d+( Mbit/s|s)?", r"9.9\1"),
    (r"compression level: \d", "compression level: 9"),
    (r"(failing|high latency): (true|false)", r"\1: yes"),
    (r"dial tcp \S+: connect", "dial tcp [::1]:9: connect"),
    (r"request [A-Z0-9]{26}", "request ID"),
    (r"[ \t]+", " "),
)
"""Take out what a model answers, and what is another at every run."""


@pytest.fixture
def checkout(tmp_path):
    """What the page needs of a checkout: the client, an environment, the models of a run."""
    (tmp_path / "go").symlink_to(ROOT / "go")
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "activate").write_text(f'PATH="{sys.prefix}/bin:$PATH"\n')
    for name in MODELS:
        make_bundle(tmp_path / "runs/latest/models", name, "20260101-000000")
    return tmp_path


def test_it_works_as_it_is_pasted(checkout):
    client = find_client()
    http, grpc = free_ports(2)

    def on_free_ports(text):
        text = text.replace("8501", str(http)).replace("8502", str(grpc))
        return text.replace("--port-file", f"--http_port {http} --grpc_port {grpc} --port-file")

    path = f"{client.go.parent}:/usr/bin:/bin"
    with Pasted(checkout, checkout, PATH=path, GOTOOLCHAIN="local") as shell:
        left_out = paste_page(PAGE, shell, alike=alike, change=on_free_ports)
        gofmt = shell.paste('gofmt -l "${TMPDIR:-/tmp}/steer"\n')
    assert gofmt.strip() == ""
    assert len(left_out) == 1
    assert len(left_out[0]) > 20


def test_no_file_of_the_page_names_an_index():
    for block in blocks_of(PAGE, "bash"):
        assert "GOPROXY" not in block.text
        assert "go get" not in block.text
