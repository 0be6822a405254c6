"""BERT4Rec in JAX: a bidirectional sequence model for movie recommendation."""

__version__ = "0.1.0"
