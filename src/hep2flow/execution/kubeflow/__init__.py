"""Kubeflow Pipelines: compiling, submitting, waiting, and what a step does."""
