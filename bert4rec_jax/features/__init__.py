"""From item metadata and text to a content matrix; user features. Nothing here imports jax."""
