"""A manifest with random changes is refused with a sentence, or served; nothing else is raised."""

import copy
import json

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from dwcp_ml.contract.bundle import MANIFEST_NAME
from dwcp_ml.contract.errors import BundleRefused, DwcpError, ErrorCode
from dwcp_ml.contract.models import MODELS
from dwcp_ml.export.verify import open_bundle
from dwcp_ml.serving.contract_check import signature_fault
from dwcp_ml.serving.served_model import ServedModel
from dwcp_ml.serving.sketches import Sketches
from tests.errors import about
from tests.export.bundles import manifest_of, rewrite

VALUES = (
    None, True, 0, -1, 1, 7, 10**30, 0.5, 1e308, "", "x", "features", "float32", "\x1b[2J",
    "ü" * 300, [], [1], ["x"], {}, {"x": 1}, "no_such_feature", "uptime_pct_encoded", "_encoded",
)  # fmt: skip
FEATURES = sorted({name for spec in MODELS.values() for name in spec.features})


def place(manifest, rng):
    """Return a random place of a manifest: the container, and the key or index in it."""
    parent = manifest
    while True:
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = keys[rng.integers(len(keys))]
        if not isinstance(parent[key], dict | list) or not parent[key] or rng.random() < 0.2:
            return parent, key
        parent = parent[key]


def mutated(manifest, rng):
    """Return a manifest with one to three changes: a value, a key or an item that is another."""
    changed = copy.deepcopy(manifest)
    for _ in range(rng.integers(1, 4)):
        parent, key = place(changed, rng)
        kind = rng.integers(4)
        if kind == 0 and len(changed) > 1:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[rng.integers(len(parent))]))
        elif kind == 1:
            parent[f"{key}x"] = parent.pop(key)
        elif kind == 2 and isinstance(parent[key], str):
            parent[key] = FEATURES[rng.integers(len(FEATURES))]
        else:
            parent[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return changed


def serve(path):
    """Do with a bundle what the server and the gate do."""
    model = ServedModel.load(path)
    model.warm_up()
    rows = np.ones((3, *model.shape), np.float32)
    sketches = Sketches([model], CollectorRegistry())
    sketches.add(model, rows, model.run(rows), list(range(len(rows))))
    list(sketches.collect())
    return signature_fault(model)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_change_raises_anything_but_the_projects_errors(bundle):
    whole, rng, refused = manifest_of(bundle), np.random.default_rng(4), 0
    for number in range(2000):
        changed = mutated(whole, rng)
        (bundle / MANIFEST_NAME).write_text(json.dumps(changed))
        try:
            serve(bundle)
        except DwcpError as error:
            refused += 1
            sentence = str(error)
            assert sentence.endswith("."), (number, sentence)
            assert "\n" not in sentence, (number, sentence)
        except Exception as error:
            pytest.fail(f"number {number} raises {error!r}: {json.dumps(changed)[:3000]}")
    assert 1000 < refused < 2000


@pytest.mark.parametrize("features", [("no_such_feature",), ("\x1b[2J",), None, ()])
def test_features_that_can_not_be_served_are_refused(bundle, features):
    known = manifest_of(bundle)["feature_order"]
    first = [known[1]] if features is None else list(features)
    rewrite(bundle, feature_order=first + known[1:])
    with pytest.raises(BundleRefused, check=about(ErrorCode.CONTRACT, "feature_order")):
        open_bundle(bundle)
