"""The Kubeflow components: each one calls a stage of ``dwcp_ml`` and does nothing else."""
