"""Initial: what the kernels of a model start from."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = Any

_NOISE = 0.02  # standard deviation around the identity, and of what starts near zero


class Initial(NamedTuple):
    """Initialisers of a model's parameters.

    Attributes:
      random: of embeddings, and of kernels that fit neither of the others.
      passing: of the square kernels through which the vectors of a history reach the output: values
        and outputs of attention, and the transform of the head.
      added: of the kernels whose results are added to these vectors: the last of a feed-forward
        network.
    """

    random: Initializer
    passing: Initializer
    added: Initializer


def initialisers(kind: Literal["random", "identity"], scale: float) -> Initial:
    """Initialisers of a kind; `scale` is the standard deviation of what is random.

    With `identity`, a model begins as one that mixes the vectors of a history and compares the
    result with those of all items. So items that occur together attract each other from the first
    step on. With `random`, the model first has to learn how to pass a vector on. Beginning with
    attention whose products of kernels have a strong diagonal, as in trained models, is an idea of
    Trockman and Kolter, "Mimetic Initialization of Self-Attention Layers" (ICML 2023).
    """
    random = nn.initializers.truncated_normal(scale)
    if kind == "random":
        return Initial(random, random, random)
    return Initial(random, near_identity, nn.initializers.normal(_NOISE))


def near_identity(key: jax.Array, shape: tuple[int, int], dtype: Any = jnp.float32) -> jax.Array:
    """The identity plus normal noise, for a kernel `[D, D]`."""
    return jnp.eye(*shape, dtype=dtype) + _NOISE * jax.random.normal(key, shape, dtype)
