"""docs/on-call.md has a section for each alert, and each alert names its section."""

import re

import pytest
import yaml

from tests.docs.pages import ROOT, anchors

PAGE = ROOT / "docs/on-call.md"
TEXT = PAGE.read_text(encoding="utf-8")
RULES = [
    rule
    for group in yaml.safe_load(
        (ROOT / "manifests/overlays/prometheus/alert-rules.yaml").read_text()
    )["spec"]["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))


def test_each_alert_has_its_section_and_no_section_lacks_its_alert():
    assert len(RULES) >= 7
    assert set(SECTIONS) == {rule["alert"] for rule in RULES}
    assert len(re.findall(r"^## ", TEXT, re.MULTILINE)) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_leads_to_its_section(rule):
    name, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert ROOT / name == PAGE
    assert anchor == rule["alert"].lower()
    assert anchor in anchors(PAGE)


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do(name):
    section = SECTIONS[name]
    places = [section.find(f"**{word}") for word in ("What it means.", "Look at", "Do.")]
    assert -1 not in places
    assert places == sorted(places)


def test_the_list_names_each_alert_with_its_severity():
    told = dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (\w+) \|", TEXT, re.MULTILINE))
    assert told == {rule["alert"]: rule["labels"]["severity"] for rule in RULES}


def test_every_limit_that_a_section_tells_is_the_rules():
    """Numbers in words of the page, against the expressions and the times of the rules."""
    rules = {rule["alert"]: rule for rule in RULES}
    assert rules["DwcpRolloutStalled"]["for"] == "30m"
    assert "half an hour" in SECTIONS["DwcpRolloutStalled"]
    assert rules["DwcpOperatorNoLeader"]["for"] == "5m"
    assert "five minutes" in SECTIONS["DwcpOperatorNoLeader"]
    assert rules["DwcpOperatorErrors"]["expr"].endswith("> 0.1")
    assert "one in ten seconds" in SECTIONS["DwcpOperatorErrors"]
    assert "0.99," in rules["DwcpOperatorSlow"]["expr"]
    assert rules["DwcpOperatorSlow"]["expr"].endswith("> 1")
    assert rules["DwcpFeatureDrift"]["expr"].endswith("> 0.25")
    assert rules["DwcpFeatureDrift"]["for"] == "6h"
    assert "above 0.25" in SECTIONS["DwcpFeatureDrift"]
    assert "For six hours" in SECTIONS["DwcpFeatureDrift"]
    assert re.findall(r"> ([0-9.]+)", rules["DwcpLiveErrorOverTarget"]["expr"]) == ["0.05", "0.02"]
    assert "5 % for the bandwidth predictor, 2 %" in SECTIONS["DwcpLiveErrorOverTarget"]
    slow = SECTIONS["DwcpOperatorSlow"]
    assert "One reconciliation in a hundred takes longer than a second" in slow
    assert rules["DwcpModelErrors"]["expr"].strip().endswith("> 0.01")
    assert "More than 1 %" in SECTIONS["DwcpModelErrors"]
    assert rules["DwcpModelSlow"]["expr"].endswith("> 0.01")
    assert "more than 10 ms" in SECTIONS["DwcpModelSlow"]


def test_the_reasons_of_what_is_held_are_those_of_the_operators_page():
    told = set(re.findall(r"^\| `(\w+)` \|", SECTIONS["DwcpRolloutStalled"], re.MULTILINE))
    known = (ROOT / "docs/operator.md").read_text()
    assert len(told) >= 5
    assert all(f"`{reason}`" in known for reason in told)


def test_the_errors_that_are_named_are_classes_of_the_code():
    from dwcp_ml.kube import api
    from dwcp_ml.kubeflow import client

    told = re.findall(r"^\| `(\w+)` \|", SECTIONS["DwcpOperatorErrors"], re.MULTILINE)
    assert len(told) >= 4
    assert all(hasattr(api, name) or hasattr(client, name) for name in told)
