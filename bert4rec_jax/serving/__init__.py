"""Serving: a trained model as a portable bundle, and lists from it.

Two halves. `export`, `traced` and `add_items` make bundles of runs, `evaluation` tests them, and
these need all that training needs. All other files answer from a bundle, with jax, numpy, pyarrow,
safetensors and flatbuffers alone.
"""
