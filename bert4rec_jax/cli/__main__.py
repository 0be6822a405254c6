"""`python -m bert4rec_jax.cli`."""

from bert4rec_jax.cli import program

program()
