"""Evaluation of bundles: ranks test targets by the deployed model, with the evaluator's rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.comparison import Ranker
from bert4rec_jax.evaluation.evaluator import TOP, Ranking
from bert4rec_jax.evaluation.ranks import rank_by_vectors
from bert4rec_jax.experiment.finished import FinishedRun
from bert4rec_jax.features.known_users import KnownUsers
from bert4rec_jax.serving.buckets import list_widths
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.pipeline import TwoStages
from bert4rec_jax.serving.ragged import Ragged
from bert4rec_jax.serving.requests import Requests
from bert4rec_jax.serving.scorer import Scorer, load
from bert4rec_jax.training.digests import digest

_ITEM_CHUNK = 65_536
_BLOCK = 1024  # cases ranked at once
_rank = jax.jit(partial(rank_by_vectors, top=TOP, chunk=_ITEM_CHUNK))


def rank_cases(
    scorer: Scorer, store: SequenceStore, cases: Cases, *, users: KnownUsers | None = None
) -> npt.NDArray[np.int64]:
    """`[M]` ranks of the targets among the whole catalog; 1 is best.

    Seen items are excluded, unless the model was trained to repeat them.

    Metrics of these ranks are those of the exported model:
    `evaluation.metrics.summary(rank_cases(...))`. Raises as `answer_cases`.
    """
    return answer_cases(scorer, store, cases, users=users).ranks


def exported(
    bundles: Iterable[Path],
) -> Callable[[FinishedRun], dict[str, Ranker]]:
    """Load bundles, to be tested beside the run that they were exported from.

    Returns:
      What `protocol.evaluate` takes as `exported`. It raises `UserError` for a run that one of the
      bundles was not exported from: that run may have been trained on the answers.

    Raises:
      UserError: see `load`; or a bundle is a pipeline, or was trained on all events.
    """
    scorers = {str(path): load(path) for path in bundles}
    for path, scorer in scorers.items():
        if scorer.bundle.manifest.get("all_events"):
            raise UserError(
                f"{path} was trained on all events, the test among them, so it cannot be tested; "
                "export the run before its final fit (without its folder `final`) to test a bundle"
            )
        if scorer.bundle.retriever is not None:
            raise UserError(
                f"{path} is a pipeline, whose lists are shorter than the catalog that is ranked; "
                f"test its parts, {path}/retriever and {path}/ranker, each with the run that it "
                "was exported from"
            )
    return partial(_of_run, scorers)


def _of_run(scorers: Mapping[str, Scorer], finished: FinishedRun) -> dict[str, Ranker]:
    store, users = finished.setting.store, finished.setting.known_users
    for scorer in scorers.values():
        _require_same_catalog(scorer, store)
        _require_exported_from(finished, scorer.bundle)
    return {path: partial(answer_cases, each, store, users=users) for path, each in scorers.items()}


def answer_cases(
    scorer: Scorer,
    store: SequenceStore,
    cases: Cases,
    among: npt.NDArray[np.int32] | None = None,
    *,
    users: KnownUsers | None = None,
) -> Ranking:
    """Rank the catalog for M cases with a bundle's own user and item vectors.

    Args:
      scorer: the bundle; only the ranker of a pipeline is used.
      store: the data.
      cases: the cases to rank for.
      among: `[M, C]` tokens, the only ones to rank; None for the whole catalog.
      users: the features of the store's users, for a model that uses them.

    Raises:
      UserError: the data has another catalog than the bundle, or no times for a model that reads
        them; `users` is missing or has another encoding than the bundle; or a score is not finite.
    """
    bundle, functions = scorer.bundle, scorer.ranker.functions
    _require_same_catalog(scorer, store)
    if bundle.user_encoding not in (None, users.encoding if users else None):
        raise UserError(
            f"{bundle.path} reads {', '.join(bundle.user_encoding.names)} of users, encoded "
            f"otherwise than {'here' if users else 'where nothing is known of users'}; use the "
            "table of users of the run that was exported"
        )
    if bundle.reads_times and not store.timed:
        raise UserError(f"{bundle.path} reads times, and the log of {store.path} has none")
    size = functions.largest_batch
    order = np.argsort(cases.rows - store.offsets[cases.users], kind="stable")
    ranks = np.zeros(len(cases), np.int64)
    top = np.zeros((len(cases), TOP), np.int32)
    for start in range(0, len(order), size):
        which = order[start : start + size]
        filled = np.concatenate([which, np.repeat(which[:1], size - len(which))])
        requests = _requests(store, cases[filled], users)
        histories = _padded(requests.histories)
        ranked = _rank(
            scorer.ranker.user_vectors(requests),
            functions.vectors,
            functions.bias,
            store.tokens[cases.rows[filled]],
            histories[:, :1] * 0 if bundle.repeats else histories,
            store.catalog.is_item(),
            bundle.known,
            *(() if among is None else (among[filled],)),
            boosts=functions.boosts_of(_padded(scorer.ranker.read(requests))),
        )
        if np.asarray(ranked.broken).any():
            raise UserError(f"a score is NaN or infinite; export {bundle.path} again")
        ranks[which] = np.asarray(ranked.ranks)[: len(which)]
        top[which] = np.asarray(ranked.top)[: len(which)]
    return Ranking(ranks, top)


def two_stage_ranks(
    stages: TwoStages,
    scorer: Scorer,
    store: SequenceStore,
    cases: Cases,
    cuts: Sequence[int],
    *,
    users: KnownUsers | None = None,
) -> dict[int, npt.NDArray[np.int64]]:
    """`[M]` ranks of the targets by a pipeline, for each number of candidates in `cuts`.

    Ties count against the pipeline, as elsewhere. A target that the retriever does not select gets
    rank V, the last. Both stages run once, for the largest number of candidates. Without `users`,
    all user features are unknown.

    Raises:
      UserError: see `rank_cases`.
    """
    _require_same_catalog(scorer, store)
    last = store.catalog.num_rows
    ranks = {cut: np.full(len(cases), last, np.int64) for cut in cuts}
    for start in range(0, len(cases), _BLOCK):
        block = cases[np.arange(start, min(start + _BLOCK, len(cases)))]
        requests = _requests(store, block, users)
        keep = scorer.bundle.repeats
        found = stages.first.rank(requests, top=max(cuts), keep_seen=keep)
        lists = stages.ordered(requests, found, keep_seen=keep)
        places = found.items.places[found.items.find(lists.items)]
        rows, targets = lists.items.rows, store.tokens[block.rows]
        is_target = lists.items.values == targets[rows]
        # The score of a target that was not selected is NaN; its row of `ahead` is not used.
        score = np.full(len(block), np.nan, np.float32)
        place = np.full(len(block), last)
        score[rows[is_target]], place[rows[is_target]] = lists.scores[is_target], places[is_target]
        not_below = ~is_target & ~(lists.scores < score[rows])
        for cut in cuts:
            ahead = np.bincount(rows[not_below & (places < cut)], minlength=len(block))
            handed_on = np.flatnonzero(place < cut)
            ranks[cut][start + handed_on] = 1 + ahead[handed_on]
    return ranks


def _padded(lists: Ragged) -> npt.NDArray[np.int32]:
    """The lists as rows of one of a few widths, so that few shapes are compiled."""
    return lists.padded(list_widths(int(lists.lengths.max(initial=0)))[-1])


def _require_exported_from(finished: FinishedRun, bundle: Bundle) -> None:
    setting, made = finished.setting, bundle.manifest
    run = setting.config.workdir
    expected = {
        "data_fingerprint": setting.store.fingerprint,
        "parameters_sha256": digest(finished.best.state.params),
        "corrections_sha256": finished.corrections.digest,
    }
    for name, value in expected.items():
        if made.get(name, value) != value:  # earlier versions did not write the corrections
            raise UserError(
                f"{bundle.path} was not exported from {run} as it is now (its {name} is "
                f"{str(made[name])[:12]}, expected {value[:12]}), so it may have been trained on "
                f"what the test asks; export it again (`bert4rec export {run} BUNDLE`), or "
                "evaluate the run that it comes from"
            )


def _require_same_catalog(scorer: Scorer, store: SequenceStore) -> None:
    if store.catalog.fingerprint != scorer.bundle.manifest["catalog_fingerprint"]:
        raise UserError(
            f"{store.path} has another catalog than {scorer.bundle.path}; use the data of the run "
            "that was exported"
        )


def _requests(store: SequenceStore, cases: Cases, users: KnownUsers | None) -> Requests:
    """Requests with the whole history before each target."""
    starts = store.offsets[cases.users]
    histories = Ragged(store.tokens, store.offsets).slices(starts, cases.rows - starts)
    ratings = Ragged(store.ratings, store.offsets).slices(starts, cases.rows - starts)
    times = Ragged(store.timestamps, store.offsets).slices(starts, cases.rows - starts)
    return Requests(
        histories=histories,
        ratings=ratings.values,
        candidates=None,
        excluded=Ragged.empty(len(cases)),
        counts=Counter(),
        users=users.of(cases.users) if users else {},
        times=times.values,
        at=store.timestamps[cases.rows],
    )
