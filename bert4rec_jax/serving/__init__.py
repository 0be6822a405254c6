"""Serving: exports a trained model as a portable bundle, and ranks items with it.

There are two halves. `export`, `traced` and `add_items` make bundles from runs, and `evaluation`
tests them; these need all that training needs. All other modules answer requests from a bundle and
need only jax, numpy, pyarrow, safetensors and flatbuffers (and rich for output on a terminal).
"""
