"""The generated definitions: complete, bounded, up to date, and they reject what is wrong.

That they are structural, and that the rules in them hold, a real API server says: tests/cluster.
"""

import re
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml
from pydantic import BaseModel

from docs.generators.crd import RESOURCES, crd_files, definition, open_api_schema
from docs.generators.structural_schema import structural
from dwcp_ml.contract.errors import DwcpError
from dwcp_ml.operator import conditions
from dwcp_ml.operator.api.parts import Part, Rule
from tests.operator.admission import ABOUT_A_CHANGE, admitted, plain
from tests.operator.crd_examples import CHANGES, REFUSED, TAKEN

ROOT = Path(__file__).parents[2]
SCHEMAS = {one.names.kind: open_api_schema(one) for one in RESOURCES}
KINDS = sorted(SCHEMAS)
KSTATUS = (conditions.READY, conditions.RECONCILING, conditions.STALLED)


VALIDATORS = {kind: jsonschema_rs.Draft4Validator(plain(one)) for kind, one in SCHEMAS.items()}


def places(schema, path=""):
    """Yield (path, schema) of a schema and everything in it."""
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from places(one, f"{path}.{name}".lstrip("."))
    for key, mark in (("items", "[]"), ("additionalProperties", ".*")):
        if key in schema:
            yield from places(schema[key], path + mark)


def test_the_committed_definitions_are_those_of_the_types():
    directory = ROOT / "manifests/crds"
    committed = {
        path.name: path.read_text(encoding="utf-8") for path in directory.glob("ml.*.yaml")
    }
    assert committed == crd_files(), "run `make golden`"


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_one_that_the_api_server_checks(kind):
    """Of one that it does not know it says nothing, and takes any text."""
    formats = {one["format"] for _, one in places(SCHEMAS[kind]) if "format" in one}
    assert formats <= {"int64", "double", "date-time"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_object_says_what_is_in_it(kind):
    """One that does not loses everything: the API server drops what is not listed."""
    contents = {"properties", "additionalProperties", "x-kubernetes-preserve-unknown-fields"}
    empty = [
        path
        for path, one in places(SCHEMAS[kind])
        if one.get("type") == "object" and path != "metadata" and not contents & one.keys()
    ]
    assert empty == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_has_a_message_of_one_line(kind):
    for path, one in places(SCHEMAS[kind]):
        for rule in one.get("x-kubernetes-validations", ()):
            assert rule.keys() - {"optionalOldSelf"} == {"rule", "message"}, path
            assert len(rule["message"].splitlines()) == 1, path


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_explained(kind):
    silent = [
        path
        for path, one in places(SCHEMAS[kind])
        if not one.get("description") and path != "metadata" and path[-1:] not in ("]", "*")
    ]
    assert silent == []


@pytest.mark.parametrize("kind", KINDS)
def test_everything_has_a_bound(kind):
    """So that the rules have a price that can be told, and a status can't outgrow the store."""
    unbounded = []
    for path, one in places(SCHEMAS[kind]):
        if path in ("apiVersion", "kind") or "enum" in one or one.get("format") == "date-time":
            continue
        bound = {"string": "maxLength", "array": "maxItems"}.get(one.get("type"))
        if "additionalProperties" in one:
            bound = "maxProperties"
        if bound is not None and bound not in one:
            unbounded.append(path)
    assert unbounded == []


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_the_user_writes_has_defaults_and_the_status_of_a_new_object(kind):
    status = SCHEMAS[kind]["properties"]["status"]
    assert [path for path, one in places(status) if "default" in one] == [""]
    assert status["default"] == {"observedGeneration": -1}, "kstatus would call it Current"
    spec = SCHEMAS[kind]["properties"]["spec"]
    assert [path for path, one in places(spec) if "default" in one]


@pytest.mark.parametrize("example", TAKEN, ids=lambda one: one.name)
def test_the_schema_takes(example):
    VALIDATORS[example.kind].validate(example.new)


@pytest.mark.parametrize(
    "example", [one for one in REFUSED if one.by == "schema"], ids=lambda one: one.name
)
def test_the_schema_refuses(example):
    told = [
        f"{'.'.join(map(str, error.instance_path))} {error.message}"
        for error in VALIDATORS[example.kind].iter_errors(example.new)
    ]
    assert any(example.refused in text for text in told), told


@pytest.mark.parametrize(
    "example", [one for one in REFUSED if one.by == "rule"], ids=lambda one: one.name
)
def test_what_a_rule_refuses_is_there_for_the_rule_alone(example):
    assert VALIDATORS[example.kind].is_valid(example.new)
    told = [
        rule["message"]
        for _, one in places(SCHEMAS[example.kind])
        for rule in one.get("x-kubernetes-validations", ())
    ]
    assert any(example.refused in message for message in told)


@pytest.mark.parametrize("example", [*TAKEN, *REFUSED, *CHANGES], ids=lambda one: one.name)
def test_admission_in_memory_accepts_and_rejects_the_same(example):
    """tests/cluster/test_crds.py has the same examples on a real API server."""
    _, errors = admitted(example.new, example.old)
    assert bool(errors) == bool(example.refused), errors
    if "inferenceService can't be changed" not in example.refused:  # nor can the object's name
        assert any(example.refused in text for text in errors or [""]), errors


def test_every_rule_about_a_change_has_an_example_that_it_rejects():
    assert len(ABOUT_A_CHANGE) > 5
    rejections = [example.refused for example in CHANGES if example.refused]
    for message in ABOUT_A_CHANGE:
        assert any(part in message for part in rejections), message


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda one: one.names.kind)
def test_a_definition_names_what_kubectl_shows(resource):
    spec = definition(resource)["spec"]
    (version,) = spec["versions"]
    assert (spec["group"], version["name"], spec["scope"]) == (
        "ml.dwcp.io",
        "v1alpha1",
        "Namespaced",
    )
    assert (version["served"], version["storage"]) == (True, True)
    assert spec["names"]["categories"] == ["dwcp"]
    assert version["subresources"] == {"status": {}}
    paths = {f".{path}" for path, _ in places(version["schema"]["openAPIV3Schema"])}
    for column in version["additionalPrinterColumns"]:
        assert column["jsonPath"] in paths | {".metadata.creationTimestamp"}
    shown = [one["name"] for one in version["additionalPrinterColumns"] if not one.get("priority")]
    assert shown[0] == "Phase"
    assert shown[-1] == "Age"


def test_kubectl_get_tells_where_a_rollout_stands_and_what_it_waits_for():
    columns = definition(RESOURCES[0])["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = {one["name"]: (one["jsonPath"], one["type"]) for one in columns}
    assert (
        shown.items()
        >= {
            "Step": (".status.step", "string"),
            "Target": (".status.targetPercent", "integer"),
            "Live": (".status.livePercent", "integer"),
            "Since": (".status.since", "date"),
            "Evidence": (".status.evidence", "string"),
            "Reason": (".status.reason", "string"),
        }.items()
    )
    wide = {one["name"] for one in columns if one.get("priority")}
    assert wide == {"Evidence", "Stable", "Message"}


@pytest.mark.parametrize(
    ("kind", "types"),
    [
        ("ModelRollout", {*KSTATUS, conditions.PROMOTED}),
        ("TrainingRun", {*KSTATUS}),
    ],
)
def test_the_definition_names_the_conditions_that_are_written(kind, types):
    status = SCHEMAS[kind]["properties"]["status"]["properties"]
    told = status["conditions"]["description"]
    assert set(re.findall(r"([A-Z][a-z]+):", told)) == types


def test_the_short_names_are_those_of_the_documentation():
    assert [one.names.short for one in RESOURCES] == ["mr", "tr"]


def test_a_rule_about_a_change_is_the_api_servers_alone():
    """Every other rule is kept by the type too."""
    rules = [rule for part in _parts(Part) for rule in part.rules]
    assert len(rules) > 20
    for rule in rules:
        assert (rule.holds is None) == ("oldSelf" in rule.cel), rule.message


def test_no_rule_stops_a_stored_run_from_being_cancelled():
    """The API server checks what a change leaves alone no more, but its parents it does."""
    rules = SCHEMAS["TrainingRun"]["properties"]["spec"]["x-kubernetes-validations"]
    at_creation = [rule for rule in rules if rule.get("optionalOldSelf")]
    assert len(at_creation) == 2
    assert all(rule["rule"].startswith("oldSelf.hasValue() || (") for rule in at_creation)
    about_a_change = [rule["rule"] for rule in rules if rule not in at_creation]
    assert all("oldSelf." in rule for rule in about_a_change)
    assert "x-kubernetes-validations" not in SCHEMAS["TrainingRun"]


def _parts(part):
    for one in part.__subclasses__():
        yield one
        yield from _parts(one)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda one: one.name)
def test_every_example_in_the_documentation_is_accepted(page):
    kinds = {one.names.kind: one for one in RESOURCES}
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        for document in yaml.safe_load_all(block):
            if isinstance(document, dict) and document.get("kind") in kinds:
                kinds[document["kind"]].parse(document)
                VALIDATORS[document["kind"]].validate(document)


def test_the_documentation_has_examples_of_both_kinds():
    text = (ROOT / "docs/custom-resources.md").read_text(encoding="utf-8")
    for kind in KINDS:
        assert len(re.findall(rf"```yaml\napiVersion: .*\nkind: {kind}\n", text)) >= 2


class Either(BaseModel):
    value: int | bool


class Anything(BaseModel):
    value: Any


class OffByNull(BaseModel):
    value: int | None = 3


class Fixed(BaseModel):
    value: tuple[int, str]


class Inner(Part):
    rules = (Rule("self.value > 1", "too small", lambda one: one.value > 1),)
    value: int = 2


class Outer(Part):
    inner: Inner = Inner()
    maybe: Inner | None = None


@pytest.mark.parametrize("type_", [Either, Anything, OffByNull, Fixed])
def test_what_no_structural_schema_can_say_is_refused(type_):
    with pytest.raises(DwcpError, match=r"\.value"):
        structural(type_)


def test_rules_and_defaults_of_a_part_are_where_it_is_used():
    properties = structural(Outer)["properties"]
    rules = [{"rule": "self.value > 1", "message": "too small"}]
    assert properties["inner"]["x-kubernetes-validations"] == rules
    assert properties["maybe"]["x-kubernetes-validations"] == rules
    assert properties["inner"]["default"] == {"value": 2}
    assert "default" not in properties["maybe"]
