"""Metrics of M ranked lists, from the rank of each target and the top of each list.

With one relevant item per case, every accuracy metric is a function of that item's rank r (1 is
best):

    HR@k   = [r <= k]
    NDCG@k = [r <= k] / log2(r + 1)      (Järvelin and Kekäläinen, 2002; the ideal DCG is 1)
    MRR    = 1 / r                       (untruncated)

A metric over several cases is the mean over these. Everything is float64.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.data.split import Cases, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError

CUTOFFS = (1, 5, 10, 50, 100, 200)
POPULARITY = ("cold", "tail", "middle", "head")

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]


def hit_rate(ranks: Ints, k: int) -> Floats:
    """`[M]`: 1 where the target is among the first k."""
    return (ranks <= k).astype(np.float64)


def ndcg(ranks: Ints, k: int) -> Floats:
    """`[M]`: `1 / log2(r + 1)` where the target is among the first k, else 0."""
    return np.where(ranks <= k, 1 / np.log2(ranks + 1.0), 0.0)


def reciprocal_rank(ranks: Ints) -> Floats:
    """`[M]`: `1 / r`."""
    return 1.0 / ranks


def contribution(name: str, ranks: Ints) -> Floats:
    """`[M]`: the value of a metric for each case, for any cut-off.

    Args:
      name: `hr@K`, `ndcg@K` or `mrr`.
      ranks: `[M]`, 1 is best.

    Raises:
      UserError: there is no metric with this name.
    """
    if name == "mrr":
        return reciprocal_rank(ranks)
    found = re.fullmatch(r"(hr|ndcg)@([1-9]\d*)", name)
    if found is None:
        raise UserError(
            f"{name!r} is no metric; expected hr@K or ndcg@K with a whole number K, such as "
            "ndcg@10, or mrr"
        )
    return (hit_rate if found[1] == "hr" else ndcg)(ranks, int(found[2]))


def contributions(ranks: Ints) -> dict[str, Floats]:
    """The value of each metric for each case, for means and for the bootstrap.

    Args:
      ranks: `[M]`, 1 is best.

    Returns:
      `hr@k` and `ndcg@k` for k in `CUTOFFS`, and `mrr`: `[M]` each.

    Raises:
      ValueError: a rank is below 1.
    """
    if len(ranks) and ranks.min() < 1:
        raise ValueError(f"ranks start from 1; the lowest is {ranks.min()}")
    return {
        **{f"hr@{k}": hit_rate(ranks, k) for k in CUTOFFS},
        **{f"ndcg@{k}": ndcg(ranks, k) for k in CUTOFFS},
        "mrr": reciprocal_rank(ranks),
    }


def summary(ranks: Ints) -> dict[str, float]:
    """The mean of each metric over M cases, under the keys of `contributions`.

    Raises:
      ValueError: there are no cases, or a rank is below 1.
    """
    if not len(ranks):
        raise ValueError("no case to average; a metric needs at least one")
    return {name: float(values.mean()) for name, values in contributions(ranks).items()}


def coverage(top: Ints, num_items: int) -> float:
    """The number of distinct recommended items as a share of the catalog.

    Args:
      top: `[M, k]` tokens; PAD fills lists that are shorter than k.
      num_items: items in the catalog.
    """
    return len(np.unique(top[top >= FIRST_ITEM])) / num_items


def novelty(top: Ints, counts: Ints, num_items: int) -> float:
    """Mean self-information of the recommended items, in bits.

    `mean(-log2 p_i)` over all positions of all lists, with `p_i = (n_i + 1) / (n + num_items)` from
    training counts n_i and their sum n (Vargas and Castells, RecSys 2011). Adding 1 to each count
    keeps the novelty of items without a training interaction finite.

    Args:
      top: `[M, k]` tokens; PAD fills lists that are shorter than k.
      counts: `[V]` training interactions per token.
      num_items: items in the catalog.

    Raises:
      ValueError: no item is recommended.
    """
    recommended = top[top >= FIRST_ITEM]
    if not len(recommended):
        raise ValueError(f"no item is recommended in {len(top)} lists; novelty needs at least one")
    share = (counts[recommended] + 1.0) / (counts.sum() + num_items)
    return float(-np.log2(share).mean())


def cold_exposure(top: Ints, counts: Ints) -> float:
    """The share of recommended items without a training interaction; 0 if none is recommended.

    Args:
      top: `[M, k]` tokens; PAD fills lists that are shorter than k.
      counts: `[V]` training interactions per token.
    """
    recommended = top[top >= FIRST_ITEM]
    return float((counts[recommended] == 0).mean()) if len(recommended) else 0.0


def popularity_groups(counts: Ints) -> npt.NDArray[np.int8]:
    """`[V]`: an index into `POPULARITY` for each token, by its training interactions.

    With items sorted by decreasing popularity, the head has the first third of all training
    *interactions*, the middle the second, and the tail the rest. Thirds of *items* would put almost
    every target of a long-tailed log into the head. The group depends only on the count, so equally
    popular items are in the same group. Items without a training interaction are cold.
    """
    values, inverse, occurrences = np.unique(counts, return_inverse=True, return_counts=True)
    interactions = values * occurrences
    more_popular = interactions[::-1].cumsum()[::-1] - interactions
    total = int(interactions.sum())
    group = np.select(
        [values == 0, 3 * more_popular < total, 3 * more_popular < 2 * total],
        [POPULARITY.index("cold"), POPULARITY.index("head"), POPULARITY.index("middle")],
        POPULARITY.index("tail"),
    )
    return group[inverse].astype(np.int8)


def by_popularity(ranks: Ints, targets: Ints, counts: Ints) -> dict[str, Mapping[str, float]]:
    """`summary` for the targets of each popularity group, and their number, `cases`.

    Args:
      ranks: `[M]`, 1 is best.
      targets: `[M]` tokens.
      counts: `[V]` training interactions per token.

    Returns:
      One entry per name in `POPULARITY`; a group without targets has only `cases`, which is 0.
    """
    groups = popularity_groups(counts)[targets]
    report: dict[str, Mapping[str, float]] = {}
    for group, name in enumerate(POPULARITY):
        own = ranks[groups == group]
        report[name] = {"cases": len(own), **(summary(own) if len(own) else {})}
    return report


def known(cases: Cases, store: SequenceStore, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """`[M]`: true where both the user and the target occur in the rows `offsets[u]:stop[u]`.

    Published results for global-time splits exclude all other cases.
    """
    trained_on = stop > store.offsets[:-1]
    counts = train_counts(store, stop)
    mask: npt.NDArray[np.bool_] = trained_on[cases.users] & (counts[store.tokens[cases.rows]] > 0)
    return mask
