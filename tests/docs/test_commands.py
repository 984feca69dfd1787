"""What stands in a shell block of any page could be typed: shell, commands, options, names."""

import re
import shlex
import subprocess

import click
import pytest
import yaml

from dwcp_ml.cli import group
from tests.docs.pages import ROOT, blocks_of, markdown_files

PAGES = [path for path in markdown_files() if blocks_of(path, "bash", "sh", "console")]


def commands(text):
    """Return the words of each call of dwcp-ml in a shell block; comments and the rest are left."""
    joined = text.replace("\\\n", " ")
    for line in joined.splitlines():
        plain = line.removeprefix("$ ").strip()
        found = re.search(r"(?:^|[;&|(!] *|\bif )(?:\.venv/bin/)?dwcp-ml ([^`]*)$", plain)
        if found and not plain.startswith("#"):
            lexer = shlex.shlex(found[1], posix=True, punctuation_chars=";|&>()")
            lexer.whitespace_split, lexer.commenters = True, "#"
            words = []
            for word in lexer:
                if re.fullmatch(r"[;|&<>()]+", word):
                    break
                words.append(word)
            yield words


def refusal(words):
    """Return why a call of dwcp-ml would be refused as wrong usage; empty if it would not."""
    command, names = group, []
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command), rest[0])
        if found is None:
            return f"there is no command {rest[0]}"
        command, names = found, [*names, rest.pop(0)]
    known = {
        name
        for one in command.get_params(click.Context(command))
        for name in (*one.opts, *one.secondary_opts)
    }
    known |= {"--help", "-h", "--debug", "--version"}
    unknown = [
        word for word in rest if word.startswith("--") and word.partition("=")[0] not in known
    ]
    return f"{' '.join(names)} has no option {unknown[0]}" if unknown else ""


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shell_understands_every_block_and_we_every_command(path):
    shell = [block.text for block in blocks_of(path, "bash", "sh")]
    done = subprocess.run(
        ["bash", "-n"], input="\n".join(shell), capture_output=True, text=True, timeout=10,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for block in blocks_of(path, "bash", "sh", "console"):
        for words in commands(block.text):
            assert not refusal(words), f"line {block.line}: {words}"


def test_the_commands_are_really_looked_at():
    found = [words for path in PAGES for block in blocks_of(path, "bash") for words in
             commands(block.text)]  # fmt: skip
    assert len(found) > 25
    assert refusal(["train", "bandwith"]) == "there is no command bandwith"
    assert refusal(["serve", "--prot", "1"]) == "serve has no option --prot"
    assert list(commands("A=1 && dwcp-ml gate --strict > x  # why")) == [["gate", "--strict"]]


def test_what_is_named_in_commands_stands_in_the_manifests():
    """Deployment, account, Lease, secret, labels: a name that moved would leave a dead command."""
    files = sorted((ROOT / "manifests/base").glob("*.yaml"))
    base = "\n---\n".join(path.read_text() for path in files)
    kinds = [one for one in yaml.safe_load_all(base) if one]
    names = {(one["kind"], one["metadata"].get("name")) for one in kinds if "metadata" in one}
    assert {
        ("Deployment", "dwcp-ml-operator"), ("ServiceAccount", "dwcp-ml-operator"),
        ("ServiceAccount", "dwcp-ml-pipeline"), ("ServingRuntime", "dwcp-ml-server"),
    } <= names  # fmt: skip
    for name in ("production.md", "on-call.md"):
        text = (ROOT / "docs" / name).read_text()
        named = set(re.findall(r"\bdwcp-ml-(?:operator|pipeline|server)[a-z-]*", text))
        known = {name for _, name in names if name}
        assert named <= known, named - known
        assert "app.kubernetes.io/name=dwcp-ml-operator" in text
