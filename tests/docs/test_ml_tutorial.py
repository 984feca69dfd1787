"""docs/tutorials/ml-engineer.md works as pasted: it trains, evaluates, signs and rolls out."""

import pytest

from tests.docs.pages import ROOT
from tests.docs.pasting import Pasted, alike_but_for, paste_page
from tests.pipelines.fake_kubeflow import FakeKubeflow

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(900)]

PAGE = ROOT / "docs/tutorials/ml-engineer.md"
ADDRESS = "http://localhost:8080"
alike = alike_but_for(
    (r"\d{8}-\d{6}", "20260101-000000"),
    (r"\b\d+ s\b", "9 s"),
    (r"http://127\.0\.0\.1:\d+", ADDRESS),
    (r"[0-9a-f]{64}", "9" * 64),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "2026-01-01T00:00:00Z"),
    (r"\d+\.\d+ %", "9.9 %"),  # of networks: another processor rounds another way
    (r"[ \t━─]+", " "),
)
"""Take times, names of runs and widths out; figures stay: the same seed gives the same."""


@pytest.fixture
def kubeflow():
    fake = FakeKubeflow()
    yield fake
    fake.stop()


def test_it_works_as_it_is_pasted(kubeflow, tmp_path):
    with Pasted(ROOT, tmp_path, seconds=500.0, COLUMNS="200", NO_COLOR="1") as shell:
        left_out = paste_page(
            PAGE, shell, alike=alike, change=lambda text: text.replace(ADDRESS, kubeflow.address)
        )
    print(sorted(shell.times, reverse=True)[:8])
    assert kubeflow.violations == []
    assert kubeflow.run["display_name"] == "nightly-1"
    assert len(left_out) == 1, left_out
    assert len(left_out[0]) > 20, left_out
