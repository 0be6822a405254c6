"""Flax modules: arrays in, arrays out. The only other module they import is `sharding`.

Every model has the same two methods: `encode` (histories to vectors) and `item_vectors` (the
catalog as vectors and biases). Evaluation, top-k and export use only these two.
"""
