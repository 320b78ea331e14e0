"""Object storage: where data sets, splits, trainings and runs lie."""
