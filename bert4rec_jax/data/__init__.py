"""Raw logs to batches: NumPy, pyarrow and Grain. Nothing here imports jax."""
