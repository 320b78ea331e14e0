"""Predictions of a trained network, and what follows from them: metrics, intervals, tests, heat maps."""
