"""From a trained model to a bundle: exports, parity checks, manifest and signature.

    onnx_graph.py  the rules of every exported ONNX file: names, types, order
    keras.py       the three Keras models as ONNX, SavedModel and .keras
    forest.py      the isolation forest as one tree ensemble and a little arithmetic
    predictions.py the predictions of each exported file
    pickled.py     the numbers in model.pkl, read without unpickling
    onnx_recurrent.py  removes the nodes around an LSTM that ONNX does not need
    probes.py      the inputs on which exports are compared
    parity.py      difference between an export and the trained model (pure)
    latency.py     the time of one prediction
    exporter.py    the whole export: files, parity, latency, one ExportRecord
    provenance.py  the origin of a bundle
    bundle.py      a staging directory becomes a finalized bundle, atomically
    verify.py      opening an untrusted bundle
    plain_files.py     the files of an untrusted directory
    untrusted_graph.py whether a graph may be loaded
    keys.py        the key pair that bundles are signed with
    signature.py   checking the signature of a bundle
    signing.py     signing a bundle

TensorFlow is imported inside functions of ``keras.py`` and ``predictions.py`` only.
"""

from dwcp_ml.export.bundle import finalize_bundle, staging
from dwcp_ml.export.exporter import FORMATS, export_model
from dwcp_ml.export.keys import make_key_pair
from dwcp_ml.export.signing import sign_bundle
from dwcp_ml.export.verify import Bundle, bundle_digest, open_bundle, verify_bundle

__all__ = [
    "FORMATS",
    "Bundle",
    "bundle_digest",
    "export_model",
    "finalize_bundle",
    "make_key_pair",
    "open_bundle",
    "sign_bundle",
    "staging",
    "verify_bundle",
]
