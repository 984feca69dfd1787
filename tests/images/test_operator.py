"""The operator's image: it starts as the manifests start it, and holds the pipelines."""

import json
from pathlib import Path

import pytest
import yaml

from dwcp_ml.contract.models import MODELS
from dwcp_ml.operator.training_reconcile import pipelines_in

pytestmark = pytest.mark.image

ROOT = Path(__file__).parents[2]
(POD,) = (
    document["spec"]["template"]["spec"]
    for document in yaml.safe_load_all((ROOT / "manifests/base/operator.yaml").read_text())
    if document["kind"] == "Deployment"
)
(CONTAINER,) = POD["containers"]
MEMORY = CONTAINER["resources"]["limits"]["memory"].replace("Mi", "m")

IMPORTS = """
import importlib, pkgutil
import dwcp_ml.kube.kserve, dwcp_ml.operator
for package in (dwcp_ml.kube.kserve, dwcp_ml.operator):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        print(module.name)
"""

PIPELINES = """
import json
from pathlib import Path
from dwcp_ml.contract.models import MODELS
from dwcp_ml.operator.settings import OperatorSettings
from dwcp_ml.operator.training_reconcile import pipelines_in
directory = OperatorSettings.model_fields["pipelines"].default
print(json.dumps(pipelines_in(directory)(tuple(MODELS))))
"""


def test_its_help_names_the_options_that_the_manifests_give(operator):
    done = operator.run("operator", "run", "--help")
    assert done.returncode == 0, done.stderr
    options = [word.partition("=")[0] for word in CONTAINER["args"] if word.startswith("--")]
    assert options
    for option in options:
        assert option in done.stdout


def test_without_a_cluster_it_says_so_in_one_sentence(operator):
    arguments = [word.replace("$(POD_NAMESPACE)", "dwcp-ml") for word in CONTAINER["args"]]
    done = operator.run(*arguments, options=(f"--memory={MEMORY}",))
    assert done.returncode == 2
    assert done.stdout == ""
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("dwcp-ml: No cluster is configured: ")


def test_every_module_of_it_can_be_imported(operator):
    assert "dwcp_ml.operator.reconcile" in operator.python(IMPORTS).split()


def test_it_finds_the_compiled_pipeline_where_it_looks_by_itself(operator):
    pipelines = json.loads(operator.python(PIPELINES))
    assert pipelines == json.loads(json.dumps(pipelines_in(ROOT / "pipelines")(tuple(MODELS))))
