"""Sampled: candidate lists of the BERT4Rec paper's protocol, only to compare with its figures.

The paper ranks a target against 100 items drawn by popularity instead of the whole catalog. Such
figures depend on the draw and order models differently than full ranking does (Krichene and
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
    """Draw distinct negatives by training popularity, one after the other without replacement.

    `never drawn` draws among items that the user has not seen (Sun et al., CIKM 2019, section 4.2).
    `drawn and dropped` draws among all items but the target and then takes the seen ones out: the
    code of asash/bert4rec_repro, which RecTools' published comparison runs. Fewer negatives remain,
    which flatters every model. Items without a training interaction are never drawn.

    Args:
      cases: M questions.
      store: the data.
      counts: `[V]` training interactions per token.
      seen: what happens to items of the user's whole history.
      rng: makes the draws; equal generators give equal lists.
      negatives: how many are drawn.

    Returns:
      `[M, 1 + negatives]` tokens: the target, the negatives in the order of drawing, then PAD where
      fewer are left.

    Raises:
      ValueError: more negatives are wanted than the table has rows.
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
    """Metrics of one model as the mean over the draws.

    Args:
      ranks: `[M]` ranks among the candidates, per draw.

    Returns:
      The means of `hr@k`, `ndcg@k` and `mrr`, and `draws`: `ndcg@10` of each.
    """
    each = [summary(one) for one in ranks]
    return {
        **{name: round(float(np.mean([one[name] for one in each])), 6) for name in each[0]},
        "draws": [round(one["ndcg@10"], 6) for one in each],
    }


def draws(
    cases: Cases, store: SequenceStore, counts: npt.NDArray[np.integer]
) -> dict[str, npt.NDArray[np.int32]]:
    """Per variant, `never_drawn` and `drawn_and_dropped`: `[3, M, 101]`, the three fixed draws."""
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
    """`[b, negatives]`: the first arrivals of independent clocks that tick at an item's popularity.

    The first k of exponential arrival times with rates n_i are k draws without replacement with
    probabilities proportional to n_i (Efraimidis and Spirakis, 2006), for all cases at once.
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
    # A stable sort on "left out" closes the gaps and keeps the order of drawing.
    order = np.argsort(~kept, axis=1, kind="stable")
    tokens = np.where(kept, first, PAD).astype(np.int32)
    return np.take_along_axis(tokens, order, axis=1)
