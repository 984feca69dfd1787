"""The stages of one run: dataset, train, evaluate, export, gate.

A stage reads directories that former stages wrote and writes one of its own. The command line
and the Kubeflow components both call these functions; nothing else decides how a run goes.

    dataset/          telemetry.parquet, incidents.json, validation.json, quarantine.csv,
                      ceilings.json
    trained/          training.json and the model's own files
    evaluated/        evaluation.json, evidence.npz
    <model>/<version> the bundle
    gate              report.{json,md,html} and the manifests
"""
