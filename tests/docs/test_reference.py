"""The generated reference is whole: nothing that the code reads or tells is missing in it.

That it equals what the code generates now, tests/test_golden.py holds.
"""

import re

import pytest
import yaml

from docs.generators.variables import VARIABLES
from tests.docs.pages import ROOT

CONFIGURATION = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
SOURCES = ("dwcp_ml", "components", "pipelines", "images", "go", "tests/cluster", "benchmarks")


def rows(page, heading, level="##"):
    """Return the cells of every row of the tables below a heading."""
    _, _, rest = page.partition(f"\n{level} {heading}\n")
    assert rest, heading
    part = re.split(rf"^#{{2,{len(level)}}} ", rest, flags=re.MULTILINE)[0]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def keys_of(values, path=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


@pytest.mark.parametrize("path", sorted((ROOT / "dwcp_ml/models").glob("*.yaml")),
                         ids=lambda path: path.stem)  # fmt: skip
def test_every_key_of_a_models_file_is_told_with_its_default(path):
    told = {row[0].strip("`"): row[2].strip("`") for row in rows(CONFIGURATION, path.stem, "###")}
    there = dict(keys_of(yaml.safe_load(path.read_text())))
    assert told.keys() == there.keys()
    for key, default in there.items():
        assert yaml.safe_load(told[key]) == default, key


def test_every_key_of_the_tasks_file_is_told():
    content = yaml.safe_load((ROOT / "pipelines/resources.yaml").read_text())
    told = {row[0].strip("`") for row in rows(CONFIGURATION, "The tasks of the pipeline")}
    assert {key for key, _ in keys_of(content["defaults"])} | set(content["tasks"]) <= told


def test_every_argument_of_the_compiled_pipeline_is_told():
    found = next(yaml.safe_load_all((ROOT / "pipelines/training.yaml").read_text()))
    told = {row[0].strip("`") for row in rows(CONFIGURATION, "The pipeline's arguments")}
    assert set(found["root"]["inputDefinitions"]["parameters"]) <= told


@pytest.mark.parametrize("page", [CONFIGURATION, METRICS], ids=["configuration", "metrics"])
def test_every_row_says_what_it_means(page):
    tables = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(tables) >= 3
    for table in tables:
        head, _, *lines = table.splitlines()
        column = next(
            (place for place, name in enumerate(head.split("|")) if name.strip() in MEANINGS), None
        )
        assert column is not None, head
        for line in lines:
            cells = re.split(r"(?<!\\)\|", line)
            assert cells[column].strip(), line
            assert len(cells) == head.count("|") + 1, line


MEANINGS = ("meaning", "what it tells", "what it has of its own", "upper bounds of the buckets")


def test_every_variable_of_the_sources_is_told_and_no_other():
    """`DWCP_` followed by an option's name is in the tables of the commands."""
    found = set()
    for name in SOURCES:
        for path in (ROOT / name).rglob("*"):
            if path.suffix in {".py", ".go", ".sh"} or path.name == "Containerfile":
                found |= set(re.findall(r"\bDWCP_[A-Z]+(?:_[A-Z]+)*\b", path.read_text()))
    listed = {one.name for one in VARIABLES if one.name.startswith("DWCP_")}
    of_options = set(re.findall(r"^\| `--[^|]*\| `(DWCP_\w+)`", CONFIGURATION, re.MULTILINE))
    assert listed <= found
    assert found <= listed | of_options
    assert listed | of_options <= set(re.findall(r"DWCP_\w+", CONFIGURATION))


@pytest.mark.parametrize("page", ["serving.md", "operator.md"])
def test_the_metrics_that_a_page_names_are_told(page):
    named = set(re.findall(r"`(dwcp_(?:\w+))", (ROOT / "docs" / page).read_text()))
    told = set(re.findall(r"^\| `(dwcp_\w+)`", METRICS, re.MULTILINE))
    assert len(named) > 5
    assert named - {"dwcp_ml"} <= told
