"""A training's record, as other people's trackers read it: TensorBoard and MLflow."""
