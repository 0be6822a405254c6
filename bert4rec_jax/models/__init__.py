"""Flax modules: arrays in, arrays out. They import nothing else of this package.

Every model answers the same two questions: `encode` (histories to vectors) and `item_vectors`
(the catalog as vectors and biases). Evaluation, top-k and export are written against these.
"""
