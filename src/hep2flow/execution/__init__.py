"""Runs a pipeline and its stages: on this machine, as RayJobs on Kubernetes, or on Kubeflow."""
