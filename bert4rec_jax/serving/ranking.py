"""Ranking: turns requests in tokens into ranked lists of items, in batches of a few shapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import PAD
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.ranks import list_order
from bert4rec_jax.serving.buckets import (
    LONGEST_CANDIDATES,
    blocks,
    history_widths,
    list_widths,
    smallest,
)
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.functions import Functions, More
from bert4rec_jax.serving.ragged import Ragged
from bert4rec_jax.serving.requests import Requests

_SHORT = 64  # longest list that is computed at one of a few lengths


@dataclass(frozen=True)
class Lists:
    """N lists, best first; equal scores in the order of tokens.

    Attributes:
      items: tokens of the listed items.
      scores: `[M]` float32, one per value of `items`.
      counts: candidates that were left out, by reason.
    """

    items: Ragged
    scores: npt.NDArray[np.float32]
    counts: Counter[str]

    def first(self, top: int | None) -> Lists:
        """At most the best `top` items of each list; None for all."""
        if top is None:
            return self
        kept = self.items.places < top
        return Lists(self.items.where(kept), self.scores[kept], self.counts)

    def blended(self, other: Lists, weight: float) -> Lists:
        """Add `weight` times the scores of `other`, and order the lists anew.

        `other` has all items of these lists.
        """
        items = self.items
        scores = self.scores + np.float32(weight) * other.scores[other.items.find(items)]
        order = list_order(scores, items.values, items.rows)
        return Lists(Ragged(items.values[order], items.offsets), scores[order], self.counts)


@dataclass(frozen=True, eq=False)
class Ranker:
    """Answers requests with a bundle's functions.

    Results do not depend on which requests are batched together, except for rounding: scores agree
    within 1e-5 relative.

    Attributes:
      functions: compute scores and vectors.
      listed: `[V]`, the items that can be listed.
      bundle: says what the model reads: its last L - 1 items that it can score, and which ratings
        are thumbs up.
    """

    functions: Functions
    listed: npt.NDArray[np.bool_]
    bundle: Bundle

    def rank(self, requests: Requests, *, top: int | None, keep_seen: bool = False) -> Lists:
        """A list for every request.

        Args:
          requests: the requests.
          top: the length of lists; None for all items that can be listed. Lists are shorter where
            fewer items can be listed.
          keep_seen: also list items of the history.

        Raises:
          UserError: a score is NaN.
        """
        read = self._read(requests)
        if requests.candidates is not None:
            return self._among(requests.candidates, requests, read, top, keep_seen)
        every = len(self.listed)
        return self._of_all(requests, read, min(top or every, every), keep_seen)

    def user_vectors(self, requests: Requests) -> npt.NDArray[np.float32]:
        """`[N, D]`: the model's encoding of each history."""
        read = self._read(requests)
        vectors = np.zeros((len(requests), self.functions.vectors.shape[1]), np.float32)
        same = np.zeros(len(requests), np.int64)
        found = [
            (rows, self.functions.encode(*read.history(rows, width), read.more(rows, width)))
            for rows, width, _ in blocks((self._widths(read), same), self._batch)
        ]
        for rows, result in found:
            vectors[rows] = np.asarray(result)[: len(rows)]
        return vectors

    def read(self, requests: Requests) -> Ragged:
        """The items that the model reads of each history: the last L - 1 that it knows."""
        return self._read(requests).items

    def _of_all(self, requests: Requests, read: _Read, top: int, keep_seen: bool) -> Lists:
        excluded = _excluded(requests, keep_seen).distinct()
        widths = list_widths(int(excluded.lengths.max(initial=0)))
        computed = _length_computed(top, len(self.functions.bias))
        scores = np.zeros((len(requests), top), np.float32)
        tokens = np.zeros((len(requests), top), np.int32)
        shapes = (self._widths(read), smallest(excluded.lengths, widths))
        found = [
            (
                rows,
                self.functions.top_k(
                    *read.history(rows, width),
                    excluded.take(rows).padded(others),
                    computed,
                    read.more(rows, width),
                ),
            )
            for rows, width, others in blocks(shapes, self._batch)
        ]
        for rows, (best, where) in found:
            scores[rows] = np.asarray(best)[: len(rows), :top]
            tokens[rows] = np.asarray(where)[: len(rows), :top]
        _check(scores)
        listed = tokens != PAD
        return Lists(
            Ragged.from_lengths(tokens[listed], listed.sum(axis=1)), scores[listed], Counter()
        )

    def _among(
        self,
        given: Ragged,
        requests: Requests,
        read: _Read,
        top: int | None,
        keep_seen: bool,
    ) -> Lists:
        candidates, counts = self._listable(given, _excluded(requests, keep_seen))
        pieces, owners = _pieces(candidates)
        widths = list_widths(int(pieces.lengths.max(initial=0)))
        shapes = (self._widths(read)[owners], smallest(pieces.lengths, widths))
        found = []
        for rows, width, wide in blocks(shapes, self._batch):
            asked = pieces.take(rows).padded(wide)
            history, more = read.history(owners[rows], width), read.more(owners[rows], width)
            scored = self.functions.score(*history, asked, more)
            found.append((rows, scored))
        scores = np.zeros(len(candidates.values), np.float32)
        places = Ragged(np.arange(len(scores)), pieces.offsets)
        for rows, result in found:
            block = np.asarray(result)[: len(rows)]
            real = np.arange(block.shape[1]) < pieces.lengths[rows][:, None]
            scores[places.take(rows).values] = block[real]
        _check(scores)
        order = list_order(scores, candidates.values, candidates.rows)
        ranked = Ragged(candidates.values[order], candidates.offsets)
        return Lists(ranked, scores[order], counts).first(top)

    def _listable(self, given: Ragged, excluded: Ragged) -> tuple[Ragged, Counter[str]]:
        """Each candidate once, without those that may not be listed; and how many were left out."""
        distinct = given.distinct()
        barred = np.isin(distinct.keys(), excluded.keys())
        unlisted = ~self.listed[distinct.values] & ~barred
        counts = Counter(
            repeated_candidates=len(given.values) - len(distinct.values),
            excluded_candidates=int(barred.sum()),
            unlisted_candidates=int(unlisted.sum()),
        )
        return distinct.where(~barred & ~unlisted), counts

    def _read(self, requests: Requests) -> _Read:
        histories = requests.histories
        kept = self.bundle.known[histories.values]
        items = histories.where(kept)
        thumbs = Ragged(to_thumbs(requests.ratings[kept], self.bundle.thumbs), items.offsets)
        encoding = self.functions.user_encoding
        users = None if encoding is None else requests.users.get(encoding)
        times = at = None
        if self.bundle.reads_times:
            at, seconds = requests.moments()
            times = Ragged(seconds[kept], items.offsets).last(self._longest)
        return _Read(
            items.last(self._longest), thumbs.last(self._longest), users=users, times=times, at=at
        )

    def _widths(self, read: _Read) -> npt.NDArray[np.int64]:
        return smallest(read.items.lengths, history_widths(self._longest))

    @property
    def _longest(self) -> int:
        return self.bundle.max_length - 1

    @property
    def _batch(self) -> int:
        return self.functions.largest_batch


@dataclass(frozen=True, eq=False)
class _Read:
    """What a model reads of N requests.

    Attributes:
      items, thumbs: of each history.
      users: `[N, G]` user features, if the model uses them and the requests have them; else None.
      times: uint32 seconds since 1970 of `items`, for a model that reads times; else None.
      at: `[N]` uint32, those of each request; given together with `times`.
    """

    items: Ragged
    thumbs: Ragged
    users: npt.NDArray[np.float32] | None
    times: Ragged | None
    at: npt.NDArray[np.uint32] | None

    def history(
        self, rows: npt.NDArray[np.integer[Any]], width: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """`[n, width]` tokens and thumbs of the histories of n requests, padded."""
        return self.items.take(rows).padded(width), self.thumbs.take(rows).padded(width)

    def more(self, rows: npt.NDArray[np.integer[Any]], width: int) -> More:
        """What else is read of n requests; see `Functions`."""
        if self.users is not None:
            return (self.users[rows],)
        if self.times is not None and self.at is not None:
            return self.times.take(rows).padded(width), self.at[rows][:, None]
        return ()


def _length_computed(top: int, most: int) -> int:
    """The length of lists to compute: short ones have few lengths, as each is compiled once."""
    short = list_widths(top)[-1]
    return min(short, most) if top <= _SHORT else top


def _excluded(requests: Requests, keep_seen: bool) -> Ragged:
    if keep_seen:
        return requests.excluded
    return requests.histories.beside(requests.excluded)


def _pieces(candidates: Ragged) -> tuple[Ragged, npt.NDArray[np.int64]]:
    """Cut lists into pieces of at most LONGEST_CANDIDATES values; returns each piece's request too.

    An empty list has no piece.
    """
    counts = -(-candidates.lengths // LONGEST_CANDIDATES)
    owners = np.repeat(np.arange(len(candidates)), counts)
    before = Ragged.from_lengths(owners, counts).places * LONGEST_CANDIDATES
    lengths = np.minimum(candidates.lengths[owners] - before, LONGEST_CANDIDATES)
    return Ragged.from_lengths(candidates.values, lengths), owners


def _check(scores: npt.NDArray[np.float32]) -> None:
    if np.isnan(scores).any():
        raise UserError("a score is NaN; the parameters of this bundle are broken: export it again")
