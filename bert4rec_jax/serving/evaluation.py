"""Evaluation through a bundle: ranks of what is deployed, by the evaluator's own rule."""

from __future__ import annotations

from collections import Counter
from functools import partial

import jax
import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import TOP, Ranking
from bert4rec_jax.evaluation.ranks import rank_by_vectors
from bert4rec_jax.serving.ragged import Ragged
from bert4rec_jax.serving.requests import Requests
from bert4rec_jax.serving.scorer import Scorer

_ITEM_CHUNK = 65_536


def rank_cases(scorer: Scorer, store: SequenceStore, cases: Cases) -> npt.NDArray[np.int64]:
    """`[M]` ranks of the targets among the whole catalog, seen items excluded; 1 is best.

    Metrics of these ranks are those of the exported model:
    `evaluation.metrics.summary(rank_cases(...))`. Raises as `answer_cases`.
    """
    return answer_cases(scorer, store, cases).ranks


def answer_cases(
    scorer: Scorer,
    store: SequenceStore,
    cases: Cases,
    among: npt.NDArray[np.int32] | None = None,
) -> Ranking:
    """What a bundle answers to M cases, with its own user and item vectors.

    Args:
      scorer: the bundle.
      store: the data.
      cases: who is asked about.
      among: `[M, C]` tokens, the only ones to rank; None for the whole catalog.

    Raises:
      UserError: the data has another catalog than the bundle, or a score is not finite.
    """
    bundle, functions = scorer.bundle, scorer.ranker.functions
    if store.catalog.fingerprint != bundle.manifest["catalog_fingerprint"]:
        raise UserError(
            f"{store.path} has another catalog than {bundle.path}; use the data of the run that "
            "was exported"
        )
    rank = jax.jit(partial(rank_by_vectors, top=TOP, chunk=_ITEM_CHUNK))
    size = functions.largest_batch
    ranks = np.zeros(len(cases), np.int64)
    top = np.zeros((len(cases), TOP), np.int32)
    for start in range(0, len(cases), size):
        which = np.arange(start, min(start + size, len(cases)))
        filled = np.concatenate([which, np.repeat(which[:1], size - len(which))])
        requests = _requests(scorer, store, cases[filled])
        ranked = rank(
            scorer.ranker.user_vectors(requests),
            functions.vectors,
            functions.bias,
            store.tokens[cases.rows[filled]],
            requests.histories.padded(int(requests.histories.lengths.max())),
            store.catalog.is_item(),
            bundle.known,
            *(() if among is None else (among[filled],)),
        )
        if np.asarray(ranked.broken).any():
            raise UserError(f"a score is NaN or infinite; export {bundle.path} again")
        ranks[which] = np.asarray(ranked.ranks)[: len(which)]
        top[which] = np.asarray(ranked.top)[: len(which)]
    return Ranking(ranks, top)


def _requests(scorer: Scorer, store: SequenceStore, cases: Cases) -> Requests:
    """The whole history before each target."""
    starts = store.offsets[cases.users]
    histories = Ragged(store.tokens, store.offsets).slices(starts, cases.rows - starts)
    ratings = Ragged(store.ratings, store.offsets).slices(starts, cases.rows - starts)
    return Requests(
        histories=histories,
        thumbs=to_thumbs(ratings.values, scorer.bundle.thumbs),
        candidates=None,
        excluded=Ragged.empty(len(cases)),
        counts=Counter(),
    )
