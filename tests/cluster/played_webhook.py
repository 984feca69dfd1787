"""The played KServe's admission webhook: a real HTTPS server that the API server really calls.

The rules are those of KServe's own webhook for ``spec.canary`` in Standard mode, as far as they
concern a rollout. It refuses, it does not change anything.
"""

import base64
import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODE = "serving.kserve.io/deploymentMode"
STANDARD = ("Standard", "RawDeployment")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST_NAME = 63
_FRAMEWORKS = (
    "model", "sklearn", "xgboost", "tensorflow", "pytorch", "triton", "onnx", "huggingface",
    "pmml", "lightgbm", "paddle",
)  # fmt: skip
_NOT_ON_A_CANARY = ("maxReplicas", "scaleTarget", "scaleMetric", "autoScaling", "workerSpec")


def refusal(service):
    """Return why an InferenceService is refused, or None where it is not."""
    return next(_faults(service), None)


def _faults(service):
    spec = service["spec"]
    name = service["metadata"].get("name", "")
    stable = spec["predictor"]
    if not _NAME.fullmatch(name):
        yield f"the name {name!r} of the InferenceService is not of the form {_NAME.pattern}"
    if "transformer" in spec or "explainer" in spec:
        yield "transformers and explainers are not played here: point the tests at a real KServe"
    yield from _implementation(stable, "predictor")
    canaries = spec.get("canary") or []
    mode = service["metadata"].get("annotations", {}).get(MODE, STANDARD[0])
    if canaries and mode not in STANDARD:
        yield f"spec.canary needs the deployment mode Standard, not {mode}"
    names = [stable.get("name", "")]
    for number, canary in enumerate(canaries):
        yield from _canary(canary["predictor"], f"spec.canary[{number}].predictor", name, names)
        names.append(canary["predictor"].get("name", ""))
    total = sum(canary["trafficPercent"] for canary in canaries)
    if total > 100:
        yield f"the canaries' trafficPercent add up to {total}, which is more than 100"


def _canary(predictor, where, service, names):
    name = predictor.get("name", "")
    if not name:
        yield f"{where}.name is required"
    if not _NAME.fullmatch(name):
        yield f"{where}.name {name!r} is not of the form {_NAME.pattern}"
    if name in names:
        yield f"{where}.name {name!r} is that of another predictor"
    if len(f"{service}-{name}-predictor") > _LONGEST_NAME:
        yield f"{where}.name makes a Deployment's name of over {_LONGEST_NAME} letters"
    forbidden = [field for field in _NOT_ON_A_CANARY if field in predictor]
    if forbidden:
        yield f"{where} must not set {', '.join(forbidden)}"
    if any(field in predictor for field in (*_FRAMEWORKS, "containers")):
        yield from _implementation(predictor, where)


def _implementation(predictor, where):
    found = [field for field in (*_FRAMEWORKS, "containers") if predictor.get(field)]
    if len(found) != 1:
        yield f"{where} needs exactly one implementation, it has {', '.join(found) or 'none'}"


class PlayedWebhook:
    """Serves the rules on a free port of 127.0.0.1 until ``stop``."""

    path = "/validate-serving-kserve-io-v1beta1-inferenceservice"

    def __init__(self, pair, authority):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self._bundle = base64.b64encode(authority.certificate.read_bytes()).decode()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
        )

    def start(self):
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)

    def configuration(self):
        """Return the object that makes the API server ask here, by address instead of Service."""
        port = self._server.server_address[1]
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "inferenceservice.serving.kserve.io"},
            "webhooks": [
                {
                    "name": "inferenceservice.kserve-webhook-server.validator",
                    "admissionReviewVersions": ["v1"],
                    "sideEffects": "None",
                    "failurePolicy": "Fail",
                    "timeoutSeconds": 10,
                    "clientConfig": {
                        "url": f"https://127.0.0.1:{port}{self.path}",
                        "caBundle": self._bundle,
                    },
                    "rules": [
                        {
                            "apiGroups": ["serving.kserve.io"],
                            "apiVersions": ["v1beta1"],
                            "operations": ["CREATE", "UPDATE"],
                            "resources": ["inferenceservices"],
                        }
                    ],
                }
            ],
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wrong = refusal(review["request"]["object"])
        answer = {"uid": review["request"]["uid"], "allowed": wrong is None}
        if wrong:
            answer["status"] = {"code": 403, "message": wrong}
        body = json.dumps(
            {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": answer}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
