"""Dropout whose random bits are a hash of each element's index: cheap, and the same on any mesh.

On a CPU, generating a pseudo-random number per element costs more than the layer that dropout is
applied to. Dropout only needs bits without a visible pattern. So each element's index is hashed
with two words drawn from the step's key (rounds of the "lowbias32" mixer of the hash-prospector
project, Wellons 2018). The bits depend only on the key and the index, not on the sharding.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp


class Dropout(nn.Module):
    """Zeroes elements with probability `rate` and scales the others by `1 / (1 - rate)`."""

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        """Apply dropout; shape and dtype stay the same.

        Needs an RNG key named `dropout` unless `deterministic` is true or `rate` is 0.
        """
        if deterministic or self.rate == 0:
            return x
        words = jax.random.bits(self.make_rng("dropout"), (2,), jnp.uint32)
        threshold = jnp.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        kept = hashed_bits(words, x.shape) >= threshold
        return jnp.where(kept, x / jnp.asarray(1 - self.rate, x.dtype), jnp.zeros((), x.dtype))


def hashed_bits(words: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform random bits for every element of an array.

    Args:
      words: `[2]` uint32 drawn from a key.
      shape: shape of the array; elements whose flat indices differ by 2^32 share their bits.

    Returns:
      uint32 array of the given shape.
    """
    index = jnp.zeros(shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(len(shape))):
        index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * jnp.uint32(stride % 2**32)
        stride *= shape[axis]
    return _mix(_mix(index + words[0]) ^ words[1])


def _mix(x: jax.Array) -> jax.Array:
    """A bijection on uint32; flipping an input bit flips each output bit about half of the time."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
