"""Experiments: open a recipe's inputs, then train, calibrate, test and record a model."""
