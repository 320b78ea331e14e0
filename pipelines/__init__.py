"""Kubeflow pipelines, and their compiled YAML, which a test holds against this code."""
