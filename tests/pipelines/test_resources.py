"""What each task gets on a cluster: one file, refused when wrong, written when compiled."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dwcp_ml.contract.errors import UsageError
from pipelines.resources import FILE, TASKS, VERDICT, Resources

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "pipelines/training.yaml"
DATA = {f"{one}{n}" for one in ("evaluate", "export") for n in ("", "-2", "-3", "-4")}
DATA |= {name for name in TASKS if name.startswith("train-")}


@pytest.fixture(scope="module")
def package():
    return list(yaml.safe_load_all(PACKAGE.read_text()))


def edited(tmp_path, **changes):
    content = yaml.safe_load(FILE.read_text())
    for path, value in changes.items():
        place = content
        *way, last = path.split("__")
        for key in way:
            place = place.setdefault(
                key.replace("_", "-") if place is content["tasks"] else key, {}
            )
        place[last] = value
    file = tmp_path / "resources.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def tasks_of(spec):
    groups = [spec["root"], *spec["components"].values()]
    return {n: t for g in groups for n, t in g.get("dag", {}).get("tasks", {}).items()}


def setting_of(name):
    """Return the name in the settings of a compiled task."""
    if name in ("approved", "rejected"):
        return VERDICT
    return name.rstrip("-0123456789")


def test_every_task_has_its_settings_in_the_package(package):
    spec, platform = package
    resources = Resources.read()
    executors = spec["deploymentSpec"]["executors"]
    on_kubernetes = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    tasks = {name: task for name, task in tasks_of(spec).items() if "condition" not in name}
    assert {setting_of(name) for name in tasks} == set(TASKS)
    assert on_kubernetes.keys() == executors.keys()
    for name, task in tasks.items():
        wanted = resources.tasks[setting_of(name)]
        container = executors[f"exec-{name}"]["container"]["resources"]
        assert (container["resourceCpuRequest"], container["resourceCpuLimit"]) == (
            wanted.cpu_request, wanted.cpu_limit,
        )  # fmt: skip
        assert (container["resourceMemoryRequest"], container["resourceMemoryLimit"]) == (
            wanted.memory_request, wanted.memory_limit,
        )  # fmt: skip
        assert task["retryPolicy"].get("maxRetryCount", 0) == wanted.retry.retries
        assert task["cachingOptions"].get("enableCache", False) is (wanted.cache == "always")
        pod = on_kubernetes[f"exec-{name}"]
        assert int(pod["activeDeadlineSeconds"]) == wanted.timeout_seconds
        assert pod["imagePullPolicy"] == wanted.image_pull_policy
        assert pod["securityContext"] == {
            "runAsNonRoot": True, "runAsUser": "65532", "runAsGroup": "65532",
        }  # fmt: skip


def test_whatever_may_come_from_the_cache_is_keyed_on_the_data(package):
    """Each task that reads the dataset takes its digest, and nothing is cached without it."""
    tasks = tasks_of(package[0])
    cached = {
        name for name, one in tasks.items() if one.get("cachingOptions", {}).get("enableCache")
    }
    assert cached == DATA
    for name in cached:
        digest = tasks[name]["inputs"]["parameters"]["data_digest"]["taskOutputParameter"]
        assert digest == {"outputParameterKey": "data_digest", "producerTask": "validate-data"}
    assert tasks["validate-data"]["cachingOptions"] == {"cacheKey": "known-data"}


def test_one_file_changes_what_is_compiled(tmp_path):
    file = edited(
        tmp_path,
        defaults__node_selector={"pool": "training", "example.com/zone": "a"},
        tasks__train_bandwidth_predictor__memory_limit="16Gi",
        tasks__gate__retry={"retries": 5},
        tasks__gate__image_pull_policy="Always",
        tasks__validate_data__volumes=[{"claim": "telemetry", "path": "/data"}],
        tasks__validate_data__secrets=[
            {"name": "mlpipeline-minio-artifact", "variables": {"accesskey": "AWS_ACCESS_KEY_ID"}}
        ],
        tasks__validate_data__variables={"AWS_ENDPOINT_URL": "http://seaweedfs.kubeflow:9000"},
    )
    done = subprocess.run(
        [sys.executable, "-m", "dwcp_ml.cli", "pipeline", "compile", "--output",
         str(tmp_path / "p.yaml"), "--resources", str(file), "--models", "bandwidth"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    spec, platform = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
    container = spec["deploymentSpec"]["executors"]["exec-train-bandwidth-predictor"]["container"]
    assert container["resources"]["resourceMemoryLimit"] == "16Gi"
    policy = spec["root"]["dag"]["tasks"]["gate"]["retryPolicy"]
    assert (policy["maxRetryCount"], policy["backoffDuration"]) == (5, "30s")
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    (mount,) = pods["exec-validate-data"]["pvcMount"]
    assert (mount["constant"], mount["mountPath"]) == ("telemetry", "/data")
    (secret,) = pods["exec-validate-data"]["secretAsEnv"]
    assert secret["secretName"] == "mlpipeline-minio-artifact"
    (key,) = secret["keyToEnv"]
    assert (key["secretKey"], key["envVar"]) == ("accesskey", "AWS_ACCESS_KEY_ID")
    reader = spec["deploymentSpec"]["executors"]["exec-validate-data"]["container"]
    assert {"name": "AWS_ENDPOINT_URL", "value": "http://seaweedfs.kubeflow:9000"} in reader["env"]
    pod = pods["exec-gate"]
    assert "pvcMount" not in pod
    assert pod["nodeSelector"]["labels"] == {"pool": "training", "example.com/zone": "a"}
    assert pod["imagePullPolicy"] == "Always"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks__gate__cpu_limit": "100m"}, "cpu_request 500m is more than cpu_limit 100m"),
        ({"tasks__gate__memory_limit": "512Mi"}, "memory_request 1Gi is more than"),
        ({"tasks__gate__memory_limit": "4 GB"}, "'4 GB' is not an amount of memory"),
        ({"tasks__gate__cpu_request": 1}, "gate.cpu_request"),
        ({"tasks__gate__cpu_request": "two"}, "'two' is not a number of cores"),
        ({"tasks__gate__volumes": [{"claim": "A", "path": "/d"}]}, "gate.volumes.0.claim"),
        ({"tasks__gate__variables": {"a b": "c"}}, "gate.variables"),
        ({"tasks__gate__secrets": [{"name": "s"}]}, "gate.secrets.0.variables"),
        ({"tasks__gate__timeout_seconds": 0}, "gate.timeout_seconds"),
        ({"tasks__gate__cache": "sometimes"}, "gate.cache"),
        ({"tasks__gate__retries": 3}, "gate.retries"),
        ({"tasks__gate__image_pull_policy": "Maybe"}, "gate.image_pull_policy"),
        ({"tasks__gate__security_context": {"run_as_user": 0}}, "run_as_user 0 is root"),
        ({"tasks__gate__node_selector": {"a b": "c"}}, "gate.node_selector"),
        ({"tasks__gates__cpu_limit": "1"}, "did you mean 'gate'"),
        ({"default": {}}, "did you mean 'defaults'"),
        ({"tasks": [1]}, "must map names of tasks"),
        ({"defaults": None}, "validate-data"),
    ],
)
def test_what_is_wrong_is_one_sentence(tmp_path, changes, sentence):
    with pytest.raises(UsageError) as refused:
        Resources.read(edited(tmp_path, **changes))
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["[1]", "a: [", "", "\xff"])
def test_what_is_no_settings_file_is_refused(tmp_path, content):
    file = tmp_path / "r.yaml"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(UsageError, match=r"r\.yaml"):
        Resources.read(file)
    with pytest.raises(UsageError, match="no such file"):
        Resources.read(tmp_path / "nothing.yaml")


def test_the_command_refuses_wrong_resources_with_exit_code_2(tmp_path):
    file = tmp_path / "r.yaml"
    shutil.copyfile(FILE, file)
    file.write_text(file.read_text().replace("retries: 2", "retries: many"))
    done = subprocess.run(
        [sys.executable, "-m", "dwcp_ml.cli", "pipeline", "compile", "--resources", str(file),
         "--output", str(tmp_path / "p.yaml")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "retry.retries" in done.stderr
    assert not (tmp_path / "p.yaml").exists()
