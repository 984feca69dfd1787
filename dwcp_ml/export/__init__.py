"""From a trained model to a bundle: exports, the proof that they are equal, the seal.

    onnx_graph.py  what every ONNX file of ours obeys: names, types, order, no surprises
    keras.py       the three Keras models as ONNX, SavedModel and .keras
    forest.py      the isolation forest as one tree ensemble and a little arithmetic
    answers.py     how each exported file answers
    pickled.py     the numbers in model.pkl, read without unpickling
    onnx_recurrent.py  the nodes around an LSTM that ONNX does not need
    probes.py      the inputs that an export is asked about
    parity.py      how far an export answers from what was trained (pure)
    latency.py     how long one answer takes
    exporter.py    all of that in order: files, parity, latency, one ExportRecord
    provenance.py  where a bundle comes from
    bundle.py      a staging directory becomes a sealed bundle, at once or not at all
    verify.py      opening a bundle that somebody else may have touched
    plain_files.py     the files of a directory that a stranger may have filled
    untrusted_graph.py whether a graph may be loaded
    keys.py        the key pair that bundles are signed with
    signing.py     signing a bundle, and checking whose it is

TensorFlow is imported inside functions of ``keras.py`` and ``answers.py`` only.
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
