"""Every link between pages leads somewhere: the file is there, and the heading in it."""

import doctest
import re
from urllib.parse import unquote

import pytest

from tests.docs import pages
from tests.docs.pages import ROOT, anchors, links, markdown_files, prose_and_blocks

FILES = markdown_files()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{link}: there is no such file"
        assert target.is_relative_to(ROOT), f"{link} leads out of the project"
        if anchor:
            assert target.suffix == ".md", link
            assert anchor in anchors(target), f"{link}: {sorted(anchors(target))}"


def test_what_is_looked_for_is_found():
    """The test above would pass where nothing is found."""
    assert len(FILES) > 25
    assert sum(len(links(path)) for path in FILES) > 80
    assert doctest.testmod(pages).failed == 0


def test_a_link_that_leads_nowhere_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A `b`\n# A b\n[one](x.md#y) ![two](z.svg)\n```bash\n[no](no.md)\n```\n")
    assert links(page) == ["x.md#y", "z.svg"]
    assert anchors(page) == {"a-b", "a-b-1"}


def test_every_page_of_the_documentation_is_listed():
    listed = {
        (ROOT / "docs" / link.partition("#")[0]).resolve()
        for link in links(ROOT / "docs/README.md")
    }
    there = set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs/README.md"}
    assert there <= listed, there - listed


def test_every_fence_of_code_ends():
    for path in FILES:
        prose_and_blocks(path.read_text(encoding="utf-8"))
