"""What is generated and committed equals what the code generates now."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GENERATE = runpy.run_path(str(ROOT / "docs" / "generate.py"))


@pytest.mark.filterwarnings("default")
def test_every_generated_file_is_up_to_date():
    stale = [
        name
        for name, text in GENERATE["generated"]().items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make golden` and look at the difference"
