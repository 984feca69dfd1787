"""Pasting a page notices what a reader would: a command that fails, a line that does not come."""

from pathlib import Path

import pytest

from tests.docs.pages import blocks_of
from tests.docs.pasting import Pasted, hold, paste_page

PAGE = """\
# A page

```bash
word=hello
sleep 30 &
```

```bash
echo "$word 17"; echo other; echo last
```

```text
hello 99
…
last
```

<!-- not run: it would take a year -->
```bash
exit 3
```

```bash
false || echo "exit code $?"
kill %1
```
"""


def alike(line):
    return line.replace("17", "99")


def page(tmp_path, text=PAGE):
    path = tmp_path / "page.md"
    path.write_text(text)
    return path


def test_blocks_share_a_shell_and_what_is_shown_is_compared(tmp_path):
    seen = []
    with Pasted(tmp_path, tmp_path) as shell:
        left_out = paste_page(
            page(tmp_path), shell, alike=alike, after=lambda block: seen.append(block.line)
        )
    assert left_out == ["it would take a year"]
    assert len(seen) == 3


@pytest.mark.parametrize(
    ("instead", "why"),
    [
        (("hello 99\n", "hello 98\n"), "not printed: 'hello 98'"),
        (("…\n", ""), "not printed: 'last'"),
        (("echo other", "false"), "false"),
        (("word=hello", "word=$(no-such-command)"), "no-such-command"),
        (("echo last", "sleep 9"), "no end within"),
    ],
)
def test_what_is_wrong_is_noticed(tmp_path, instead, why):
    with (
        pytest.raises(AssertionError, match=why.replace("$", "")),
        Pasted(tmp_path, tmp_path, seconds=0.5) as shell,
    ):
        paste_page(page(tmp_path, PAGE.replace(*instead)), shell, alike=alike)


def test_nothing_is_left_running(tmp_path):
    with pytest.raises(AssertionError), Pasted(tmp_path, tmp_path, seconds=0.5) as shell:
        shell.paste("sleep 60 & echo $! > job; sleep 60\n")
    job = Path(f"/proc/{(tmp_path / 'job').read_text().strip()}")
    assert not job.exists() or " Z " in (job / "stat").read_text()


def test_lines_that_are_shown_follow_each_other():
    hold("a\nb\n", "x\na\nb\n", str)
    with pytest.raises(AssertionError):
        hold("b\na\n", "a\nb\n", str)


def test_a_reason_belongs_to_one_block_only(tmp_path):
    found = blocks_of(page(tmp_path), "bash")
    assert [block.not_run for block in found] == [None, None, "it would take a year", None]
    assert {block.heading for block in found} == {"A page"}
