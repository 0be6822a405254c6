"""Serving: a trained model as a portable bundle, and lists from it.

Two halves. `export` and `traced` turn a run into a bundle, `evaluation` tests it, and these need
all that training needs. All other files answer from a bundle, with jax, numpy, pyarrow, safetensors
and flatbuffers alone.
"""
