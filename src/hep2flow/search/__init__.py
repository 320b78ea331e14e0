"""Hyperparameter search: what a sweep tries next, and what it has found."""
