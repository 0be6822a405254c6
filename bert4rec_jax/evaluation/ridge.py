"""Ridge: computes the vectors and biases of untrained items from content, by ridge regression.

In training, the ids make up for whatever content gets wrong, so `W_content` is not the best guess
of an item's vector by its content alone. Once training has ended, that guess is a regression of the
vectors and biases of trained items on their content (Gantner et al., ICDM 2010),

    minimise  Σ_i w_i |[v_i, b_i] - [a, a_b] - c_i [A, A_b]|² + λ |[A, A_b]|²      w_i ∝ n_i^1.5

where c_i is the content of item i, n_i its number of training events, and the w_i have mean 1. The
sums are over trained items that have content. An untrained item gets the vector a + c A and the
bias a_b + c A_b.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from bert4rec_jax.evaluation.search import Choice, search

PENALTIES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
POWER = 1.5  # frequent items have better vectors, and lists are made of frequent items
MOST = 100_000  # the most frequent items, of which the regression is computed


@dataclass(frozen=True)
class Ridge:
    """The regression's setting.

    Attributes:
      penalty: λ; its default is for splits that hold out no items to choose it by.
    """

    penalty: float = 10.0


@dataclass(frozen=True, eq=False)
class Regression:
    """What predicts vectors and biases from content.

    Attributes:
      weights: `[F, D + 1]` float32, A and A_b.
      constant: `[D + 1]` float32, a and a_b.
    """

    weights: npt.NDArray[np.float32]
    constant: npt.NDArray[np.float32]

    def applied(self, table: Mapping[str, Any], features: jax.Array) -> dict[str, Any]:
        """Parameters of an `ItemTable` whose untrained items have the predicted vectors and biases.

        Vectors and biases of trained items stay as they are, up to rounding: what content no longer
        adds to them is added to their ids.

        Args:
          table: the parameters of an `ItemTable` with content.
          features: `[V, F]` content, as in its collection `catalog`.
        """
        weights, bias = jnp.asarray(self.weights[:, :-1]), jnp.asarray(self.weights[:, -1])

        def moved(own: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
            return own + jnp.matmul(features, before - after, precision="highest")

        return {
            **table,
            "embedding": moved(table["embedding"], table["content"], weights),
            "bias": moved(table["bias"], table["content_bias"], bias),
            "content": weights,
            "content_bias": bias,
            "unknown": jnp.asarray(self.constant[:-1]),
            "unknown_bias": jnp.asarray(self.constant[-1]),
        }


@dataclass(frozen=True, eq=False)
class Explained:
    """The vectors and biases of trained items, beside their content: what a regression is fit to.

    Attributes:
      content: `[N, F]` float64.
      outputs: `[N, D + 1]` float64, vectors and biases.
      weights: `[N]` float64, with sum N.
    """

    content: npt.NDArray[np.float64]
    outputs: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        table: Mapping[str, npt.NDArray[np.float32]],
        features: npt.NDArray[np.float32],
        counts: npt.NDArray[np.int64],
    ) -> Explained | None:
        """Take the trained items with content, or the 100,000 most frequent of them.

        Args:
          table: the parameters of an `ItemTable` with content.
          features: `[V, F]` content.
          counts: `[V]` number of training events.

        Returns:
          None if there is no such item.
        """
        rows = np.flatnonzero((counts > 0) & (features != 0).any(1))
        rows = rows[np.argsort(-counts[rows], kind="stable")[:MOST]]
        if not len(rows):
            return None
        content = features[rows]
        vectors = table["embedding"][rows] + content @ table["content"]
        bias = table["bias"][rows] + content @ table["content_bias"]
        weights = counts[rows] ** POWER
        return cls(
            content.astype(np.float64),
            np.column_stack([vectors, bias]).astype(np.float64),
            weights / weights.mean(),
        )

    def regression(self, ridge: Ridge) -> Regression:
        """The solution of the module's equation."""
        w = self.weights / self.weights.sum()
        content_mean, output_mean = w @ self.content, w @ self.outputs
        content, outputs = self.content - content_mean, self.outputs - output_mean
        weighed = content.T * self.weights
        gram = weighed @ content + ridge.penalty * np.eye(content.shape[1])
        weights = np.linalg.solve(gram, weighed @ outputs)
        constant = output_mean - content_mean @ weights
        return Regression(weights.astype(np.float32), constant.astype(np.float32))


def choose_ridge(ask: Callable[[Ridge | None], float]) -> Choice[Ridge]:
    """Choose the penalty; None, for `W_content` and `unknown` as trained, if no penalty is better.

    Args:
      ask: maps the setting, or None, to validation NDCG@10 of untrained items.
    """
    return search(Ridge(), ask, lambda _: map(Ridge, PENALTIES))
