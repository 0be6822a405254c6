"""Explanation: why an item is recommended, and how well a hidden one is guessed from both sides.

Influence is exact: the model scores again without each item of the history, and influence is the
change of the score. Attention says where the heads look, which does not explain a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require_a, require_whole
from bert4rec_jax.data.catalog import MASK, PAD
from bert4rec_jax.data.thumbs import NONE, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.lift import gains
from bert4rec_jax.evaluation.ranks import list_order
from bert4rec_jax.serving.arguments import Facts, Ids, id_list, of_one, require_positive
from bert4rec_jax.serving.buckets import history_widths, smallest
from bert4rec_jax.serving.requests import Requests
from bert4rec_jax.serving.scorer import Answer, Scorer
from bert4rec_jax.serving.seen import Seen, read_seen, requests_of
from bert4rec_jax.serving.times import RequestTime, Times

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Influence:
    """How one item of a history changes the score of the explained one.

    A change is the value with this item, minus the value without it.

    Attributes:
      item_id, title: of the item in the history.
      read: whether the model reads it, as it does the last L - 1 items that it can score. If not,
        changes are 0.
      score: change of the score (a logit).
      log_probability: change of the log-probability, in nats.
      rank_without: rank of the explained item when this one is left out.
    """

    item_id: str
    title: str
    read: bool
    score: float
    log_probability: float
    rank_without: int


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why an item has its score and rank.

    Attributes:
      item_id, title: of the explained item.
      score: its logit.
      probability: by the softmax over all items that the model can score.
      rank: among the items that may be listed; ties count against the item. If it may not be
        listed itself, that which it would have.
      barred_by: why it may not be listed: it is "in the history", or "excluded" by the request or
        by the filters of the scorer; None if it may.
      influences: one per item of the history, oldest first.
      attention: `[layers, H, n]` attention weights from the position whose output is read; each row
        sums to 1. The columns are the items that are read, oldest first. A bidirectional model has
        one more column, the last: that position itself (MASK).
      reads_mask: whether there is a column for MASK.
    """

    item_id: str
    title: str
    score: float
    probability: float
    rank: int
    influences: tuple[Influence, ...]
    attention: npt.NDArray[np.float32]
    reads_mask: bool
    barred_by: str | None = None

    @property
    def place(self) -> str:
        """The rank in words, or that there is none."""
        if self.barred_by is None:
            return f"place {self.rank:,}"
        return f"{self.barred_by}, so not recommended (else place {self.rank:,})"


@dataclass(frozen=True)
class Guess:
    """A guess at a hidden item: the true one's probability and rank, and the likeliest items."""

    probability: float
    rank: int
    likeliest: Answer


@dataclass(frozen=True)
class BothSides:
    """Guesses at one hidden item of a history.

    Attributes:
      item_id, title: of the hidden item.
      before: the guess from only the items before it, as if it were to be chosen next.
      both: the guess from the items before and after it.
    """

    item_id: str
    title: str
    before: Guess
    both: Guess


def explain(
    scorer: Scorer,
    history: Ids,
    item: str | int | None = None,
    *,
    ratings: Sequence[float] | None = None,
    user: Facts | None = None,
    exclude: Ids = (),
    timestamps: Times | None = None,
    request_time: RequestTime | None = None,
) -> Explanation:
    """Explain the score and the rank of `item` after `history`.

    Of a pipeline, those by its ranker over the whole catalog are explained.

    Args:
      scorer: a loaded bundle.
      history: external ids, oldest first, at least one.
      item: external id; None for the item that is recommended first.
      ratings: one per item of the history, NaN for none.
      user: the user's features, for a model that uses them.
      exclude: external ids that may not be listed, besides the history; unknown ones are ignored.
      timestamps, request_time: as for `Scorer.rank`.

    Raises:
      UserError: the history is empty, an id is unknown, the model cannot score the item or any
        item of the history, or the bundle was made before the function `attend` existed.
    """
    require_a(Scorer, scorer, "scorer", "a Scorer, which `bert4rec_jax.load` makes of a bundle")
    seen = read_seen(scorer, history, ratings, timestamps, request_time)
    tokens, excluded = seen.tokens, id_list("exclude", exclude, ordered=False)
    asked = None if item is None else str(item)
    if asked is None and scorer.bundle.retriever is not None:
        found = scorer.recommend(
            history,
            1,
            exclude,
            ratings=ratings,
            user=user,
            timestamps=timestamps,
            request_time=request_time,
        ).item_ids
        asked = found[0] if found else None
    count = scorer.bundle.max_length - 1
    known = np.flatnonzero(scorer.bundle.known[tokens])
    if not len(known):
        raise UserError(
            "no item of the history has a training event, so there is nothing to explain by"
        )
    places = known[-count:]
    near = known[-(count + 1) :]  # if one item is left out, the one before the window moves up
    kept = [near, *(near[near != place] for place in places)]
    requests = requests_of([seen.at(which) for which in kept])
    if user is not None:
        rows = scorer.user_rows([user] * len(kept), len(kept), of_one)
        requests = replace(requests, users=rows)
    hidden = scorer.ranker.user_vectors(requests)
    scores, log_probabilities = _scores(scorer, hidden, requests)
    barred = _barred(scorer, tokens)
    barred[[scorer.catalog.token(name) for name in excluded if name in scorer.catalog]] = True
    target = _target(scorer, asked, scores[0], barred)
    own, own_log = scores[:, target], log_probabilities[:, target]
    ranks = [_rank(row, target, barred) for row in scores]
    row_without = {place: row for row, place in enumerate(places.tolist(), start=1)}
    influences = []
    for place, token in enumerate(tokens):
        row = row_without.get(place, 0)  # row 0: the whole history, for items that are not read
        influences.append(
            Influence(
                *_named(scorer, token),
                read=row > 0,
                score=float(own[0] - own[row]),
                log_probability=float(own_log[0] - own_log[row]),
                rank_without=ranks[row],
            )
        )
    causal = _causal(scorer)
    read = seen.at(places).and_mask()
    encoding = scorer.bundle.user_encoding
    facts = None if encoding is None else requests.users.get(encoding)
    users = None if facts is None else facts[:1]
    _, attention = _attend(scorer, read, len(places) - causal, users)
    return Explanation(
        *_named(scorer, target),
        score=float(own[0]),
        probability=float(np.exp(own_log[0])),
        rank=ranks[0],
        influences=tuple(influences),
        attention=attention[..., :-1] if causal else attention,
        reads_mask=not causal,
        barred_by=_barred_by(scorer, target, tokens, barred),
    )


def require_both_sides(scorer: Scorer) -> None:
    """Refuse a causal model, for which the items after a hidden one change nothing.

    Raises:
      UserError: the model is causal.
    """
    if _causal(scorer):
        raise UserError(
            f"{scorer.bundle.path} reads a history from the left only: what comes after an item "
            "does not change its guess; explain a model trained on masked items"
        )


def both_sides(
    scorer: Scorer,
    history: Ids,
    place: int,
    k: int = 5,
    *,
    ratings: Sequence[float] | None = None,
    timestamps: Times | None = None,
    request_time: RequestTime | None = None,
) -> BothSides:
    """Hide one item of a history, and guess it without and with the items after it.

    All other items of the history, before and after it, are excluded from both guesses, unless the
    model was trained to repeat items (`data.repeats`), and so are those that do not pass the
    filters of the scorer. Scores are those of the model alone:
    covisitation, if the bundle has it, only applies to the next item.

    Args:
      scorer: a loaded bundle.
      history: external ids, oldest first.
      place: index in the history of the item to hide.
      k: how many of the likeliest items to return.
      ratings: one per item of the history, NaN for none.
      timestamps, request_time: as for `Scorer.rank`. The hidden item is asked for when it was
        seen.

    Raises:
      UserError: as `explain`; the model is causal, so that items after the hidden one change
        nothing; or the place is not among the last L items.
    """
    place = require_whole(place, "place")
    require_positive(k)
    seen = read_seen(scorer, history, ratings, timestamps, request_time)
    tokens = seen.tokens
    length = scorer.bundle.max_length
    require_both_sides(scorer)
    lowest = max(len(tokens) - length, 0)
    if not lowest <= place < len(tokens):
        read = f"the model reads the last {length} of" if lowest else "the history has"
        raise UserError(
            f"place is {place}; expected {lowest} to {len(tokens) - 1}, as {read} {len(tokens)} "
            "items"
        )
    hidden = np.arange(len(tokens)) == place
    places = np.flatnonzero(scorer.bundle.known[tokens] | hidden)[-length:]
    masked = replace(seen, tokens=np.where(hidden, MASK, tokens)).at(places)
    both, _ = _attend(scorer, masked, int(np.flatnonzero(places == place)[0]))
    then = replace(seen.at(np.arange(place)), asked=int(seen.times[place]))
    before = scorer.ranker.user_vectors(requests_of([then]))[0]
    scores, log_probabilities = _scores(scorer, np.stack([before, both]))
    barred = _barred(scorer, np.delete(tokens, place))
    item = scorer.catalog.item_id(tokens[place])  # a series of pandas looks up labels, not places
    target = _target(scorer, item, scores[0], barred)
    barred[target] = False  # where the history has it in other places too
    guesses = [
        Guess(
            float(np.exp(logs[target])), _rank(row, target, barred), _best(scorer, row, barred, k)
        )
        for row, logs in zip(scores, log_probabilities)
    ]
    return BothSides(*_named(scorer, target), *guesses)


def _attend(
    scorer: Scorer, seen: Seen, slot: int, users: npt.NDArray[np.float32] | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """User vector `[D]` and attention `[layers, H, n]` at one slot of a history of n columns."""
    bundle, count = scorer.bundle, len(seen.tokens)
    widths = [width + 1 for width in history_widths(bundle.max_length - 1)]
    width = int(smallest(np.array([count]), widths)[0])

    def padded(values: npt.NDArray[Any], filler: int, dtype: Any) -> npt.NDArray[Any]:
        row = np.full((1, width), filler, dtype)
        row[0, :count] = values
        return row

    more = () if users is None else (users,)
    if bundle.reads_times:
        more = (padded(seen.times, 0, np.uint32),)
    hidden, weights = scorer.ranker.functions.attend(
        padded(seen.tokens, PAD, np.int32),
        padded(to_thumbs(seen.ratings, bundle.thumbs), NONE, np.int8),
        np.array([[slot]], np.int32),
        more,
    )
    return np.asarray(hidden)[0], np.asarray(weights)[0, :, :, :count]


def _scores(
    scorer: Scorer, hidden: npt.NDArray[np.float32], requests: Requests | None = None
) -> tuple[Floats, Floats]:
    """`[n, V]` scores and log-probabilities of user vectors `[n, D]`; -inf for items without any.

    With `requests`, scores include covisitation, as in lists; without, they are the model's alone.
    """
    functions = scorer.ranker.functions
    scores = hidden @ np.asarray(functions.vectors).T + np.asarray(functions.bias)
    if requests is not None:
        boosts = functions.boosts_of(scorer.ranker.read(requests).padded_to_longest())
        scores += 0 if boosts is None else np.asarray(gains(boosts, 0, scores.shape[1]))
    scores = np.where(scorer.bundle.known, scores.astype(np.float64), -np.inf)
    highest = scores.max(axis=1, keepdims=True)
    if not np.isfinite(highest).all():
        raise UserError("a score is NaN; the parameters of this bundle are broken: export it again")
    return scores, scores - highest - np.log(np.exp(scores - highest).sum(1, keepdims=True))


def _barred(scorer: Scorer, seen: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """`[V]`: the tokens that may not be listed."""
    barred = ~scorer.ranker.listed
    if not scorer.bundle.repeats:
        barred[seen] = True
    return barred


def _barred_by(
    scorer: Scorer,
    target: int,
    seen: npt.NDArray[np.int32],
    barred: npt.NDArray[np.bool_],
) -> str | None:
    if not barred[target]:
        return None
    return "in the history" if target in seen and not scorer.bundle.repeats else "excluded"


def _target(scorer: Scorer, item: str | None, scores: Floats, barred: npt.NDArray[np.bool_]) -> int:
    if item is None:
        best = _order(scores, barred)
        if not len(best):
            raise UserError("no item is left to recommend; name the item to explain")
        return int(best[0])
    token = scorer.catalog.token(item)
    if not scorer.bundle.known[token]:
        raise UserError(
            f"item {item!r} ({scorer.catalog.title(token)}) has no training event, so the model "
            "gives it no score to explain"
        )
    return token


def _rank(scores: Floats, target: int, barred: npt.NDArray[np.bool_]) -> int:
    """The target's rank by the evaluator's rule: 1 + the number of others not scored below it."""
    others = ~barred
    others[target] = False
    return 1 + int((scores[others] >= scores[target]).sum())


def _order(scores: Floats, barred: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    tokens = np.flatnonzero(~barred).astype(np.int32)
    order = list_order(scores[tokens].astype(np.float32), tokens, np.zeros(len(tokens), np.int64))
    return tokens[order]


def _best(scorer: Scorer, scores: Floats, barred: npt.NDArray[np.bool_], k: int) -> Answer:
    best = _order(scores, barred)[:k]
    names = [_named(scorer, token) for token in best]
    return Answer(
        item_ids=tuple(item for item, _ in names),
        titles=tuple(title for _, title in names),
        scores=tuple(float(scores[token]) for token in best),
    )


def _named(scorer: Scorer, token: int) -> tuple[str, str]:
    catalog = scorer.catalog
    return catalog.item_id(token), catalog.title(int(token))


def _causal(scorer: Scorer) -> bool:
    return bool(scorer.bundle.manifest["reads"] == "causal")
