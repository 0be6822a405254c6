"""Evaluation: full ranking, metrics, bootstrap intervals and baselines, under one protocol."""
