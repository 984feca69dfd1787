"""The diagrams and tables of docs/architecture.md agree with the code."""

import ast
import dataclasses
import itertools
import json
import re
import tomllib

from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.operator.api.convert import to_run_options
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.training_run.options import ModelOptions
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PACKAGES, STEPS = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
ARGUMENT = '{"bandwidth_predictor": {"targets": {"mape_percent": 4.5}}}'


def arrows(diagram):
    """Return the arrows of a Mermaid flowchart as pairs; ``a --> b & c --> d`` is four."""
    pairs = set()
    for line in diagram.splitlines():
        groups = [
            re.findall(r"(\w+)(?:\(\[.*?\]\))?(?: & |$)", group.strip())
            for group in re.split(r"--> | -- [^-]* --> ", line)
        ]
        for sources, targets in itertools.pairwise(groups):
            pairs |= {(source, target) for source in sources for target in targets}
    return pairs


def reachable(pairs, start):
    """Return the nodes that arrows lead to from a node."""
    reached, waiting = set(), [start]
    while waiting:
        source = waiting.pop()
        new = {target for first, target in pairs if first == source} - reached
        reached |= new
        waiting += new
    return reached


def import_rules():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def layers():
    """Return each package of dwcp_ml with its layer, 0 at the top."""
    return {
        package.strip().removeprefix("dwcp_ml."): number
        for number, layer in enumerate(import_rules()[0]["layers"])
        for package in layer.split("|")
        if package.strip().startswith("dwcp_ml.")
    }


def imports():
    """Return every import between two packages of dwcp_ml, as pairs."""
    pairs, packages = set(), layers()
    for path in (ROOT / "dwcp_ml").rglob("*.py"):
        source = path.relative_to(ROOT / "dwcp_ml").parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module, *(f"{node.module}.{name.name}" for name in node.names)]
            elif isinstance(node, ast.Import):
                modules = [name.name for name in node.names]
            for module in modules:
                root, _, rest = module.partition(".")
                package = rest.partition(".")[0]
                if root == "dwcp_ml" and package in packages and package != source:
                    pairs.add((source, package))
    return pairs


def test_arrows_of_a_diagram_are_read():
    diagram = 'flowchart LR\n    a --> b & c\n    d([D d]) --> e -- some "words" --> f\n'
    assert arrows(diagram) == {("a", "b"), ("a", "c"), ("d", "e"), ("e", "f")}


def test_the_diagram_and_the_table_hold_every_package_in_the_order_of_the_layers():
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`.*?) \|", PAGE, re.MULTILINE)))
    levels = layers()
    assert sorted(listed) == sorted(levels)
    assert [levels[package] for package in listed] == sorted(levels[package] for package in listed)
    assert {package for pair in arrows(PACKAGES) for package in pair} == set(levels)


def test_every_arrow_of_the_diagram_points_to_a_lower_layer():
    levels = layers()
    for source, target in arrows(PACKAGES):
        assert levels[source] < levels[target], f"{source} --> {target}"


def test_the_arrows_of_the_diagram_are_the_imports_that_no_chain_implies():
    pairs = imports()
    direct = {
        (source, target)
        for source, target in pairs
        if target not in reachable(pairs - {(source, target)}, source)
    }
    assert arrows(PACKAGES) == direct


def test_every_step_of_the_second_diagram_is_in_its_table():
    steps = {step for pair in arrows(STEPS) for step in pair} - {"row", "done"}
    table = PAGE.partition("| step | module |")[2].partition("\n\n")[0]
    rows = set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))
    assert {"accuracy" if step == "join" else step for step in steps} == rows
    assert reachable(arrows(STEPS), "row") >= {"done", "join"}


def test_the_packages_without_a_network_are_those_of_the_import_rules():
    (pure,) = [rule for rule in import_rules() if "no network" in rule["name"]]
    sentence = PAGE.partition("do not use the\nnetwork")[0].rpartition("exported. ")[2]
    listed = set(re.findall(r"`(\w+)`", sentence))
    assert {f"dwcp_ml.{package}" for package in listed} == set(pure["source_modules"])


def test_a_target_is_passed_as_the_page_says():
    body = {
        "apiVersion": "ml.dwcp.io/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "strict", "namespace": "ml", "uid": "1"},
        "spec": {
            "data": {"simulated": True},
            "targets": [{"model": "bandwidth_predictor", "metric": "mape_percent", "value": 4.5}],
        },
    }
    arguments = to_run_options(TrainingRun.parse(body)).pipeline_arguments()
    given = arguments["model_options"]
    assert ARGUMENT in PAGE
    assert str(given).replace("'", '"') == ARGUMENT
    options = ModelOptions(**given["bandwidth_predictor"])
    chosen = options.targets_of(BANDWIDTH, BANDWIDTH.form().name)
    (target,) = [target for target in chosen if target.metric == "mape_percent"]
    assert f"`{json.dumps(dataclasses.asdict(target))}`" in PAGE
