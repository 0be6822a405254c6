"""Movie metadata and text to a content matrix aligned with a catalog. Nothing here imports jax."""
