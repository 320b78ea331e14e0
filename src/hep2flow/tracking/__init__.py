"""A training's history and parameters for experiment trackers: TensorBoard and MLflow."""
