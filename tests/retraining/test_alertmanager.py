"""A real Alertmanager notifies the webhook."""

import contextlib
import json
import re
import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from dwcp_ml.http_client import HttpError, HttpSession
from dwcp_ml.kube.api import ApiUnavailable
from dwcp_ml.retraining.webhook import PATH
from tests.debian import debian_program
from tests.metrics_sources.fakes import FakeServer
from tests.retraining.test_webhook import running

pytestmark = pytest.mark.slow

TEMPLATES = Path("/usr/share/prometheus/alertmanager")
ROOT = Path(__file__).parents[2]
SECONDS = 30.0
TOKEN = "s3cret"


def program():
    """Return the words that run Debian's Alertmanager.

    It reads its templates from ``/usr/share``. Where it is not installed it gets a ``/usr/share``
    of its own that holds nothing else, in a mount namespace that ends with it.
    """
    binary = debian_program("prometheus-alertmanager", "prometheus-alertmanager")
    if TEMPLATES.is_dir():
        return [str(binary)]
    source = binary.parents[2] / TEMPLATES.relative_to("/")
    mount = f"mount -t tmpfs none /usr/share && mkdir {TEMPLATES.parent}"
    script = f'{mount} && cp -r "$0" {TEMPLATES} && exec "$@"'
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", script, source, binary]


class Alertmanager:
    """An Alertmanager that notifies a webhook of each alert, and again every second."""

    def __init__(self, place, url):
        with FakeServer() as placeholder:
            self.address = f"http://{placeholder.address}"
        (place / "token").write_text(TOKEN)
        authorization = {"type": "Bearer", "credentials_file": str(place / "token")}
        webhook = {"url": url, "http_config": {"authorization": authorization}}
        route = {
            "receiver": "retraining", "group_by": ["alertname"], "group_wait": "100ms",
            "group_interval": "1s", "repeat_interval": "1s",
        }  # fmt: skip
        receivers = [{"name": "retraining", "webhook_configs": [webhook]}]
        path = place / "alertmanager.yml"
        path.write_text(yaml.safe_dump({"route": route, "receivers": receivers}))
        self._log = place / "log"
        command = [
            *program(), f"--config.file={path}", f"--storage.path={place / 'data'}",
            f"--web.listen-address={self.address.removeprefix('http://')}",
            "--cluster.listen-address=",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=place)
        self._http = HttpSession()

    def __enter__(self):
        deadline = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(HttpError):
                self._http.request("GET", f"{self.address}/-/ready", 1.0)
                return self
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise AssertionError(f"Alertmanager did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def __exit__(self, *error):
        self._http.close()
        self._process.terminate()
        try:
            self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(SECONDS)

    def alert(self, name, ends=None, **labels):
        """Post an alert, as Prometheus does."""
        alert = {"labels": {"alertname": name, **labels}}
        if ends is not None:
            alert["endsAt"] = ends.isoformat()
        response = self._http.request(
            "POST", f"{self.address}/api/v2/alerts", 5.0, body=json.dumps([alert]).encode(),
            headers={"Content-Type": "application/json"},
        )  # fmt: skip
        assert response.status == 200, response.body


def until(true):
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def both(tmp_path):
    token = tmp_path / "token"
    token.write_text(TOKEN)
    with running(token) as hook:
        url = f"http://127.0.0.1:{hook.port}{PATH}nightly"
        with Alertmanager(tmp_path, url) as alertmanager:
            yield hook, alertmanager


def test_an_alert_starts_one_run_however_often_it_is_repeated(both):
    hook, alertmanager = both
    alertmanager.alert("DwcpFeatureDrift", model="bandwidth_predictor")
    until(lambda: hook.decisions.get("RunUnderWay", 0) >= 2)
    assert hook.decisions["Started"] == 1
    (run,) = hook.runs
    assert run["spec"]["trigger"] == "alert/DwcpFeatureDrift"


def test_a_notification_that_meets_no_api_server_is_sent_again(both):
    hook, alertmanager = both

    def fail(call):
        raise ApiUnavailable("No response.")

    hook.api.before = fail
    alertmanager.alert("DwcpLiveErrorOverTarget")
    until(lambda: hook.decisions.get("Failed", 0) >= 2)
    hook.api.before = lambda call: None
    until(lambda: hook.decisions.get("Started") == 1)
    assert len(hook.runs) == 1


def test_the_configuration_in_the_documentation_notifies_the_webhook_and_people(tmp_path):
    text = (ROOT / "docs/retraining.md").read_text(encoding="utf-8")
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.S) if "receivers:" in one]
    path = tmp_path / "alertmanager.yml"
    path.write_text(block)
    amtool = debian_program("prometheus-alertmanager", "amtool")
    words = [amtool, "config", "routes", "test", f"--config.file={path}"]

    def receivers(*labels):
        done = subprocess.run([*words, *labels], capture_output=True, text=True, check=True)
        return done.stdout.strip().split(",")

    assert receivers("alertname=DwcpLiveErrorOverTarget", "retrain=true") == [
        "retraining",
        "people",
    ]
    assert receivers("alertname=DwcpModelErrors") == ["people"]


def test_a_resolved_alert_starts_none(both):
    hook, alertmanager = both
    alertmanager.alert("Over", ends=datetime.now(UTC) - timedelta(minutes=1))
    alertmanager.alert("DwcpFeatureDrift")
    until(lambda: hook.decisions.get("Started") == 1)
    (run,) = hook.runs
    assert run["spec"]["trigger"] == "alert/DwcpFeatureDrift"
