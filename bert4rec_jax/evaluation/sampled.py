"""Sampled: the BERT4Rec paper's sampled ranking protocol, only for comparison with its figures.

The paper ranks a target against 100 items drawn by popularity, not against the whole catalog. Such
metrics depend on the draw and can order models differently than full ranking does (Krichene and
Rendle, KDD 2020), so nothing is selected by them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import PAD
from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.metrics import summary

NEGATIVES = 100
SEEDS = (0, 1, 2)

Seen = Literal["never drawn", "drawn and dropped"]

_CELLS_AT_ONCE = 1 << 22


def candidate_lists(
    cases: Cases,
    store: SequenceStore,
    counts: npt.NDArray[np.integer],
    *,
    seen: Seen,
    rng: np.random.Generator,
    negatives: int = NEGATIVES,
) -> npt.NDArray[np.int32]:
    """Draw distinct negatives without replacement, weighted by training popularity.

    `never drawn` draws from items that the user has not seen (Sun et al., CIKM 2019, section 4.2).
    `drawn and dropped` draws from all items but the target and then removes the seen ones, as does
    the code of asash/bert4rec_repro, which RecTools' published comparison runs. Fewer negatives
    remain, which improves the metrics of every model. Items without a training interaction are
    never drawn.

    Args:
      cases: the M cases.
      store: the data.
      counts: `[V]` training interactions per token.
      seen: how to treat items of the case's history.
      rng: generator for the draws; equal generators give equal lists.
      negatives: number of draws.

    Returns:
      `[M, 1 + negatives]` tokens: the target, the negatives in the order of drawing, then PAD if
      fewer remain.

    Raises:
      ValueError: `negatives` is not between 1 and V - 1.
    """
    if not 0 < negatives < len(counts):
        raise ValueError(f"cannot draw {negatives} negatives from a table of {len(counts)} rows")
    lists = np.full((len(cases), 1 + negatives), PAD, np.int32)
    lists[:, 0] = store.tokens[cases.rows]
    block = max(1, _CELLS_AT_ONCE // len(counts))
    for start in range(0, len(cases), block):
        part = cases[slice(start, start + block)]
        lists[start : start + block, 1:] = _negatives(
            part, store, counts, seen=seen, rng=rng, negatives=negatives
        )
    return lists


def average(ranks: Sequence[npt.NDArray[np.int64]]) -> dict[str, Any]:
    """Metrics of one model, averaged over the draws.

    Args:
      ranks: for each draw, `[M]` ranks among its candidates.

    Returns:
      The means of `hr@k`, `ndcg@k` and `mrr`, and `draws`: the `ndcg@10` of each draw.
    """
    each = [summary(one) for one in ranks]
    return {
        **{name: round(float(np.mean([one[name] for one in each])), 6) for name in each[0]},
        "draws": [round(one["ndcg@10"], 6) for one in each],
    }


def draws(
    cases: Cases, store: SequenceStore, counts: npt.NDArray[np.integer]
) -> dict[str, npt.NDArray[np.int32]]:
    """`never_drawn` and `drawn_and_dropped`: candidate lists `[3, M, 101]` of three fixed seeds."""
    return {
        seen.replace(" ", "_"): np.stack(
            [
                candidate_lists(cases, store, counts, seen=seen, rng=np.random.default_rng(seed))
                for seed in SEEDS
            ]
        )
        for seen in get_args(Seen)
    }


def _negatives(
    cases: Cases,
    store: SequenceStore,
    counts: npt.NDArray[np.integer],
    *,
    seen: Seen,
    rng: np.random.Generator,
    negatives: int,
) -> npt.NDArray[np.int32]:
    """`[b, negatives]`: weighted draws without replacement, for all b cases at once.

    Each item gets an exponential arrival time with its popularity n_i as rate. The k earliest items
    are k draws without replacement with probabilities proportional to n_i (Efraimidis and Spirakis,
    2006).
    """
    rows = np.arange(len(cases))
    waiting = -np.log1p(-rng.random((len(cases), len(counts))))
    arrival = np.divide(waiting, counts, out=np.full_like(waiting, np.inf), where=counts > 0)
    arrival[rows, store.tokens[cases.rows]] = np.inf
    was_seen = np.zeros(arrival.shape, bool)
    for row, history in zip(was_seen, cases.histories(store)):
        row[history] = True
    if seen == "never drawn":
        arrival[was_seen] = np.inf
    first = np.argpartition(arrival, negatives, axis=1)[:, :negatives]
    first = np.take_along_axis(first, np.argsort(arrival[rows[:, None], first], axis=1), axis=1)
    drawn = np.isfinite(arrival[rows[:, None], first])
    kept = drawn & ~was_seen[rows[:, None], first]
    # A stable sort moves the dropped ones to the end and keeps the order of drawing.
    order = np.argsort(~kept, axis=1, kind="stable")
    tokens = np.where(kept, first, PAD).astype(np.int32)
    return np.take_along_axis(tokens, order, axis=1)
