"""The four models: one file each, one protocol for all, hyperparameters in YAML beside them.

    settings.py    YAML + overrides -> typed settings
    protocol.py    the interface of every model
    registry.py    create(name), load(directory)
    bandwidth_predictor.py  compression_selector.py  reliability_detector.py  consensus_latency.py
    keras_model.py what the three Keras models share
    scaling.py     log, clip, standardise: in NumPy for training, as layers in the exported graph
    training_loop.py  the training loop;  fused.py  its implementation of the layers
    checkpoint.py  the state after an epoch;  storage.py  files, written atomically
    forest.py      the isolation forest as arrays
    runtime.py     TensorFlow, imported late, seeded and with a fixed number of threads

TensorFlow and scikit-learn are imported inside functions only.
"""

from dwcp_ml.models.protocol import EpochProgress, FitContext, FitResult, Model
from dwcp_ml.models.registry import create, load

__all__ = ["EpochProgress", "FitContext", "FitResult", "Model", "create", "load"]
