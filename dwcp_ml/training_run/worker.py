"""The program of a worker process: train, evaluate and export one model.

python -m dwcp_ml.training_run.worker '{"model": "bandwidth_predictor", ...}'
"""

from __future__ import annotations

import signal
import sys

from dwcp_ml.contract.bundle import REPORT_NAMES
from dwcp_ml.contract.models import model_spec
from dwcp_ml.contract.records import TrainingRecord
from dwcp_ml.training_run.cross_validation import cross_validate
from dwcp_ml.training_run.evaluation_step import evaluate_model
from dwcp_ml.training_run.export_step import export_bundle
from dwcp_ml.training_run.progress import reporter_of
from dwcp_ml.training_run.session import Session
from dwcp_ml.training_run.training_step import RECORD_NAME, train_model
from dwcp_ml.training_run.worker_pool import WorkerRequest


def main(arguments: list[str]) -> int:
    """Execute the request, given as JSON; return the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    request = WorkerRequest.model_validate_json(arguments[0])
    session, options = Session(request.session), request.options
    spec = model_spec(request.model)
    report = reporter_of()
    if (session.models / spec.name / session.name / REPORT_NAMES[0]).exists():
        return 0
    trained, evaluated = session.trained(spec.name), session.evaluated(spec.name)
    if not (trained / RECORD_NAME).exists():
        train_model(
            session.dataset,
            trained,
            spec,
            options,
            version=session.name,
            seed=request.seed,
            report=report,
        )
    if TrainingRecord.read(trained / RECORD_NAME).success:
        cross_validate(session.dataset, trained, spec, options, seed=request.seed, report=report)
    evaluate_model(
        session.dataset,
        trained,
        evaluated,
        spec,
        report,
        accept_leak=request.accept_leak,
        champion=request.champion,
        champion_rule=request.champion_rule,
    )
    export_bundle(
        session.dataset,
        trained,
        evaluated,
        session.models,
        spec,
        formats=request.formats,
        trigger=request.trigger,
        report=report,
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
