"""The files that the images are built of, by themselves: no engine, no network."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dwcp_ml import __version__
from dwcp_ml.cli import main
from dwcp_ml.training_run.worker_pool import QUIET
from tests.images.containerfile import Stage, read_stages
from tests.images.imports import distributions, third_party
from tests.images.locks import ABSENT, pins

ROOT = Path(__file__).parents[2]
IMAGES = ("trainer", "server", "operator")
LOCKS = (*IMAGES, "build")
USER = 65532


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return read_stages(ROOT / "images/Containerfile")


@pytest.mark.parametrize("name", LOCKS)
def test_every_pin_of_an_image_is_that_of_the_project_with_the_same_hashes(name):
    whole = pins(ROOT / "requirements.lock")
    ours = pins(ROOT / f"images/requirements-{name}.lock")
    assert ours
    for pin, hashes in ours.items():
        assert hashes, pin
        assert whole.get(pin) == hashes, f"{pin[0]}: run `make lock`"


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_only_trains_is_not_in_the_image(name):
    packages = {package for package, _ in pins(ROOT / f"images/requirements-{name}.lock")}
    assert not packages & ABSENT[name]


@pytest.mark.parametrize(
    ("name", "command", "never"),
    [
        # In functions of dwcp_ml.export that make a bundle; a server opens them.
        ("server", "dwcp_ml.cli.serve", {"keras", "sklearn", "tensorflow"}),
        ("operator", "dwcp_ml.cli.operator", set()),
    ],
)
def test_whatever_the_command_may_import_is_in_its_image(name, command, never):
    packages = {package for package, _ in pins(ROOT / f"images/requirements-{name}.lock")}
    wanted = third_party(command)
    assert len(wanted) > 5
    for package, module in wanted.items():
        if package not in never:
            assert distributions(package) & packages, f"{module} imports {package}"


def test_no_file_names_an_index_a_mirror_or_a_registry():
    files = [path for path in (ROOT / "images").iterdir() if path.is_file()]
    for path in [*files, ROOT / ".dockerignore"]:
        for address in re.findall(r"[a-z]+://\S+|--(?:extra-)?index-url\S*", path.read_text()):
            assert address == "https://ml.dwcp.io/dwcpml", f"{path.name}: {address}"


def test_the_base_is_an_argument_and_every_stage_stands_on_it(stages):
    assert stages[""].arguments == {"BASE": "python:3.11-slim-bookworm"}
    for name, stage in stages.items():
        if name:
            assert stage.base == "${BASE}" or stage.base in stages, name


def test_the_version_is_the_one_of_the_package(stages):
    given = [stage.arguments.get("VERSION") for stage in stages.values()]
    assert {version for version in given if version} == {__version__}


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_copied_together_and_runs_nothing_while_it_is(stages, name):
    stage = stages[name]
    assert stage.base == "runtime"
    assert {word for word, _ in stage.steps} <= {"ARG", "LABEL", "COPY", "ENV", "EXPOSE", "CMD"}
    copied = [text for word, text in stage.steps if word == "COPY"]
    assert f"--from={name}-libraries /opt/dwcp-ml /opt/dwcp-ml" in copied
    assert "--from=project /opt/dwcp-ml /opt/dwcp-ml" in copied


def test_who_it_runs_as_is_whom_the_manifests_and_the_pipeline_name(stages):
    assert stages["runtime"].last("USER") == f"{USER}:{USER}"
    base = ROOT / "manifests/base"
    (operator,) = (
        document["spec"]["template"]["spec"]["securityContext"]
        for document in yaml.safe_load_all((base / "operator.yaml").read_text())
        if document["kind"] == "Deployment"
    )
    runtime = yaml.safe_load((base / "serving-runtime.yaml").read_text())["spec"]["containers"][0]
    settings = yaml.safe_load((ROOT / "pipelines/resources.yaml").read_text())["defaults"]
    assert operator["runAsUser"] == operator["runAsGroup"] == USER
    assert runtime["securityContext"]["runAsUser"] == USER
    assert settings["security_context"]["run_as_user"] == USER


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_has_its_labels(stages, name):
    common, own = stages["runtime"].labels(), stages[name].labels()
    assert own["org.opencontainers.image.title"] == f"dwcp-ml-{name}"
    assert own["org.opencontainers.image.description"]
    for label in ("version", "revision", "source", "licenses", "base.name"):
        assert f"org.opencontainers.image.{label}" in common


@pytest.mark.parametrize("name", IMAGES)
def test_the_default_command_is_a_command_of_the_program(stages, name, capsys):
    assert stages["runtime"].last("ENTRYPOINT") == '["dwcp-ml"]'
    words = yaml.safe_load(stages[name].last("CMD"))
    main([*(word for word in words if not word.startswith("--")), "--help"])
    output = capsys.readouterr().out
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in output


def test_a_step_in_the_trainer_computes_as_a_worker_of_one_machine_does(stages):
    """Otherwise the same seed would give other weights on Kubeflow: threads and kernels round."""
    inherited = stages["runtime"].environment() | stages["trainer"].environment()
    for name in QUIET:
        assert inherited.get(name) == QUIET[name], name


def test_the_build_context_holds_what_is_copied_and_nothing_else(stages):
    lines = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert lines[0] == "*"
    included = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for stage in stages.values() for source in stage.sources()}
    for source in copied:
        assert any(Path(source).match(name) or source.startswith(name + "/") for name in included)
    for name in included:
        assert any(
            Path(source).match(name) or source == name or source.startswith(name + "/")
            for source in copied
        ), f".dockerignore includes {name}, but nothing copies it"
    last_included = max(i for i, line in enumerate(lines) if line.startswith("!"))
    assert {"**/__pycache__", "**/*.key", "**/*.pem"} <= set(lines[last_included + 1 :])


def test_the_manifests_and_the_pipeline_name_the_images_of_make_images():
    output = subprocess.run(
        ["make", "-n", "images", "ENGINE=engine"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    assert re.search(r"for image in trainer server operator;", output)
    (second_tag,) = re.findall(r"engine tag \S+ (\S+);", output)
    built = {*(f"dwcp-ml-{name}:{__version__}" for name in IMAGES), second_tag}
    files = [*(ROOT / "manifests/base").glob("*.yaml"), *(ROOT / "pipelines").glob("train*.yaml")]
    named = set()
    for path in files:
        images = re.findall(r"^\s*-?\s*image: (\S+)$", path.read_text(), re.MULTILINE)
        # kustomize puts the tag in where there is none.
        named |= {name if ":" in name else f"{name}:{__version__}" for name in images}
    assert named
    assert named <= built
