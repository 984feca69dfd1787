"""docs/architecture.md says how the house is built, and its picture can be read."""

import dataclasses
import itertools
import json
import re
import tomllib

from docs.generators import picture
from docs.generators.picture import BANDS, BOXES, FILLS, HEIGHT, LETTER, WIDTH
from dwcp_ml.contract.models import BANDWIDTH
from dwcp_ml.operator.api.convert import to_run_options
from dwcp_ml.operator.api.training_run import TrainingRun
from dwcp_ml.training_run.options import ModelOptions
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
WORD = '{"bandwidth_predictor": {"targets": {"mape_percent": 4.5}}}'


def test_the_packages_stand_in_the_order_of_the_import_rules():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = rules["contracts"][0]["layers"]
    levels = {
        package.strip().removeprefix("dwcp_ml."): -level
        for level, layer in enumerate(layers)
        for package in layer.split("|")
    }
    listed = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    modules = {"files", "processes", "http_client"}
    assert set(listed) | modules == set(levels) - {"pipelines", "components"}
    assert [levels[package] for package in listed] == sorted(levels[package] for package in listed)


def test_the_packages_without_a_network_are_those_of_the_import_rules():
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (pure,) = [rule for rule in rules["contracts"] if "no network" in rule["name"]]
    sentence = PAGE.partition("do not use the network")[0].rpartition("exported. ")[2]
    listed = set(re.findall(r"`(\w+)`", sentence))
    assert {f"dwcp_ml.{package}" for package in listed} == set(pure["source_modules"])


def test_the_way_of_the_parameter_is_what_happens():
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
    assert WORD in PAGE
    assert str(given).replace("'", '"') == WORD
    options = ModelOptions(**given["bandwidth_predictor"])
    chosen = options.targets_of(BANDWIDTH, BANDWIDTH.form().name)
    (target,) = [one for one in chosen if one.metric == "mape_percent"]
    assert f"`{json.dumps(dataclasses.asdict(target))}`" in PAGE


def overlap(one, other):
    across = one.x < other.x + other.width and other.x < one.x + one.width
    return across and one.y < other.y + other.height and other.y < one.y + one.height


def test_no_box_stands_on_another():
    for one, other in itertools.combinations(BOXES, 2):
        if "operator" not in (one.title, other.title):
            assert not overlap(one, other), (one.title, other.title)
    for box in BOXES:
        assert 0 < box.x < box.x + box.width < WIDTH
        assert 0 < box.y < box.y + box.height < HEIGHT


def test_every_text_has_room_in_its_box():
    for box in BOXES:
        assert len(box.title) * picture.TITLE_SIZE * LETTER < box.width, box.title
        for line in box.lines:
            assert len(line) * picture.SMALL_SIZE * LETTER < box.width, line
    assert len(BANDS) == 2


def luminance(colour):
    def linear(part):
        return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4

    red, green, blue = (linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_picture_brings_its_own_background_and_its_text_stands_out():
    """WCAG's enhanced contrast, 7 : 1, on every fill; the page behind it does not matter."""
    drawn = picture.picture()
    assert f'width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" fill="#ffffff"' in drawn
    for fill in (*FILLS.values(), "#ffffff", "#f9fafb"):
        for ink in (picture.INK, picture.FAINT):
            light, dark = sorted((luminance(fill), luminance(ink)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 7, (fill, ink)
