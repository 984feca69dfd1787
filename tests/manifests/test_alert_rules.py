"""The alert rules that start training runs, evaluated by Prometheus's own promtool."""

import subprocess

import numpy as np
import pytest
import yaml

from dwcp_ml.rollout.drift import stability_index
from tests.debian import debian_program
from tests.documents import documents_of
from tests.manifests.test_manifests import ROOT

pytestmark = pytest.mark.slow

MODEL = {"namespace": "models", "model": "bandwidth_predictor", "version": "v1"}
TRAINING = (0.1, 0.2, 0.3, 0.4)
MINUTES = 36 * 60


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """Run promtool on series and expectations; return what it says if they are not met."""
    promtool = debian_program("prometheus", "promtool")
    place = tmp_path_factory.mktemp("rules")
    (document,) = [
        one
        for one in documents_of(ROOT / "overlays/prometheus/alert-rules.yaml")
        if one["kind"] == "PrometheusRule"
    ]
    for group in document["spec"]["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)  # promtool would compare their text
    (place / "rules.yaml").write_text(yaml.safe_dump(document["spec"]))

    def run(series, *, alerts=(), expressions=()):
        test = {
            "interval": "5m",
            "input_series": [{"series": name, "values": values} for name, values in series],
            "alert_rule_test": [
                {"eval_time": time, "alertname": name, "exp_alerts": [{"exp_labels": labels}] if
                 labels else []}
                for time, name, labels in alerts
            ],
            "promql_expr_test": [
                {"expr": expression, "eval_time": time,
                 "exp_samples": [{"labels": "{}", "value": value}]}
                for time, expression, value in expressions
            ],
        }  # fmt: skip
        path = place / "test.yaml"
        path.write_text(
            yaml.safe_dump(
                {"rule_files": ["rules.yaml"], "evaluation_interval": "5m", "tests": [test]}
            )
        )
        done = subprocess.run(
            [promtool, "test", "rules", path.name], cwd=place, capture_output=True, text=True,
            check=False, timeout=120,
        )  # fmt: skip
        return "" if done.returncode == 0 else done.stdout + done.stderr

    return run


def labelled(metric, **labels):
    pairs = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return f"{metric}{{{pairs}}}"


def live(shares, an_hour=1200, pod="a", feature="rtt_ms", after=0, **labels):
    """Return series of counters that grow by these shares, and those of the training shares.

    The version is served from ``after`` hours on.
    """
    steps, before = MINUTES // 5 - after * 12, f"_x{after * 12} " if after else ""
    for bucket, (share, training) in enumerate(zip(shares, TRAINING, strict=True)):
        common = {**MODEL, **labels, "feature": feature, "bucket": bucket, "pod": pod}
        yield (
            labelled("dwcp_feature_values_total", **common),
            f"{before}0+{share * an_hour / 12:.6f}x{steps}",
        )
        yield labelled("dwcp_feature_training_share", **common), f"{before}{training}x{steps}"


def firing(severity="info"):
    return {**MODEL, "severity": severity, "retrain": "true"}


def drift_alert(*series, fires):
    labels = firing() if fires else None
    return {"series": list(series), "alerts": [("35h", "DwcpFeatureDrift", labels)]}


DRIFTED = (0.4, 0.3, 0.2, 0.1)


def test_requests_like_the_training_data_are_no_drift(check):
    assert not check(**drift_alert(*live(TRAINING), fires=False))


def test_requests_unlike_the_training_data_are(check):
    series = [*live(TRAINING), *live(DRIFTED, feature="jitter_ms")]
    assert not check(**drift_alert(*series, fires=True))


def test_a_bucket_without_requests_is_no_infinite_drift(check):
    series = list(live((0.11, 0.21, 0.31, 0.37)))
    assert not check(**drift_alert(*series, fires=False))
    almost = [(name, "0x432" if 'bucket="0"' in name and "values" in name else values)
              for name, values in live((0.0, 0.25, 0.33, 0.42))]  # fmt: skip
    psi = "max(dwcp:feature_psi:1d) < bool 1e3"
    assert not check(almost, expressions=[("35h", psi, 1)])


def test_drift_for_two_hours_is_not_enough(check):
    series = list(live(DRIFTED))
    assert not check(series, alerts=[("3h", "DwcpFeatureDrift", None)])


def test_a_part_of_a_day_is_no_drift(check):
    """The evening of a version that was promoted at noon differs from its training data."""
    assert not check(**drift_alert(*live(DRIFTED, after=20), fires=False))
    # A day and the six hours of the rule later it counts.
    assert not check(**drift_alert(*live(DRIFTED, after=4), fires=True))


def test_few_requests_tell_nothing(check):
    assert not check(**drift_alert(*live(DRIFTED, an_hour=30), fires=False))


def test_a_bundle_without_a_training_distribution_raises_no_alert(check):
    series = [one for one in live(DRIFTED) if "training" not in one[0]]
    assert not check(**drift_alert(*series, fires=False))


def test_the_rule_computes_what_the_report_does(check):
    """Over two replicas that saw different parts of the traffic."""
    one, two = (0.4, 0.3, 0.2, 0.1), (0.2, 0.4, 0.1, 0.3)
    counts = 1200 * 24 * (np.array(one) + np.array(two))
    expected, _ = stability_index(counts, np.array(TRAINING) * 1e9)
    series = [*live(one), *live(two, pod="b")]
    close = f"abs(sum(dwcp:feature_psi:1d) - {expected:.9f}) < bool 1e-4"
    assert not check(series, expressions=[("35h", close, 1)])


def served(model, steps=MINUTES // 5, **labels):
    """Return the series that says that a version is served, for a number of steps."""
    return labelled("dwcp_model_info", **{**MODEL, "model": model, **labels}), f"1x{steps} stale"


def losses(model, mean, an_hour=600, pods=2):
    steps = MINUTES // 5
    for pod in range(pods):
        common = {**MODEL, "model": model, "pod": pod}
        grows = an_hour / 12 / pods
        yield labelled("dwcp_reported_loss_count", **common), f"0+{grows}x{steps}"
        yield labelled("dwcp_reported_loss_sum", **common), f"0+{grows * mean:.6f}x{steps}"


@pytest.mark.parametrize(
    ("model", "mean", "fires"),
    [
        ("bandwidth_predictor", 0.045, False),
        ("bandwidth_predictor", 0.055, True),
        ("consensus_latency", 0.015, False),
        ("consensus_latency", 0.025, True),
    ],
)
def test_predictions_that_miss_their_target_raise_the_alert(check, model, mean, fires):
    labels = {**firing(severity="warning"), "model": model} if fires else None
    alerts = [("10h", "DwcpLiveErrorOverTarget", labels)]
    assert not check([served(model), *losses(model, mean)], alerts=alerts)


def test_a_version_that_is_no_longer_served_raises_no_alert(check):
    """Every replica counts the losses of every version, also of the one that was replaced."""
    model, name = "bandwidth_predictor", "DwcpLiveErrorOverTarget"
    series = [served(model, steps=6 * 12), served(model, version="v2"), *losses(model, 0.5)]
    fires = firing(severity="warning")
    assert not check(series, alerts=[("5h", name, fires), ("7h", name, None), ("20h", name, None)])


def test_a_few_reported_outcomes_raise_none(check):
    series = [served("bandwidth_predictor"), *losses("bandwidth_predictor", 0.5, an_hour=20)]
    assert not check(series, alerts=[("10h", "DwcpLiveErrorOverTarget", None)])


def test_a_run_that_could_not_be_started_is_an_alert(check):
    labels = {"retraining": "nightly", "decision": "Failed"}
    series = [(labelled("dwcp_retraining_notifications_total", **labels), "0x10 1x10")]
    expected = {**labels, "severity": "warning"}
    assert not check(series, alerts=[("1h", "DwcpRetrainingFailed", expected)])
