"""The steps of one training run: dataset, train, evaluate, export, check, gate.

Each step reads the directories that earlier steps wrote and writes one of its own. The command
line and the Kubeflow components call the same functions.

    dataset/          telemetry.parquet, incidents.json, validation.json, quarantine.csv,
                      ceilings.json, oracles.parquet
    trained/          training.json and the model's own files
    evaluated/        evaluation.json, plot_data.npz
    <model>/<version> the bundle
    gate              report.{json,md,html} and the manifests
"""
