"""From raw logs to batches, with NumPy, pyarrow and Grain. Nothing here imports jax."""
