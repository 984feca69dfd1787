"""The Kubeflow pipeline and its compiled YAML."""
