"""Full ranking, metrics, intervals and baselines, under one protocol."""
