"""Scorer: an exported model in Python; takes external ids, and returns ids, titles and scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from os import PathLike
from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require, require_a, require_path, require_whole
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.ranks import list_order
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.serving.arguments import (
    Facts,
    Ids,
    Place,
    Ratings,
    id_lists,
    of_many,
    of_one,
    rating_lists,
    require_facts,
    require_kind_of_lists,
    require_list,
    require_one_each,
    require_positive,
    time_lists,
)
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.filters import EVERYTHING, Filters
from bert4rec_jax.serving.functions import Functions
from bert4rec_jax.serving.pipeline import TwoStages
from bert4rec_jax.serving.ranking import Lists, Ranker
from bert4rec_jax.serving.requests import RequestReader, Requests, table_of
from bert4rec_jax.serving.retrieval import retrieval
from bert4rec_jax.serving.times import RequestTime, Times, moment_of, require_in_training


@dataclass(frozen=True)
class Answer:
    """A list of items, best first; equal scores in the order of the catalog.

    Attributes:
      item_ids: external ids.
      titles: their titles.
      scores: logits, or cosines where items are compared; comparable within one answer.
      unknown: ids in the request that the catalog does not have. They were ignored.
    """

    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    scores: tuple[float, ...]
    unknown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.item_ids)


def load(
    bundle: str | PathLike[str],
    *,
    batch_size: int = 256,
    devices: Sequence[jax.Device] | None = None,
    filters: Filters = EVERYTHING,
) -> Scorer:
    """Open a bundle for scoring.

    Args:
      bundle: a folder made by `bert4rec export` or `bert4rec pipeline`.
      batch_size: histories computed at once by one device, at most.
      devices: those to use, of one kind; None for all of this machine.
      filters: which items may be listed.

    Raises:
      UserError: see `Bundle.open` and `Filters.allowed`.
    """
    opened = Bundle.open(require_path(bundle, "bundle"))
    return Scorer(opened, batch_size=batch_size, devices=devices, filters=filters)


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """A model's item vectors and biases, in the order of the catalog.

    Attributes:
      item_ids: external ids of the n items.
      vectors: `[n, D]` float32.
      biases: `[n]` float32.
    """

    item_ids: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    biases: npt.NDArray[np.float32]

    def __repr__(self) -> str:
        count, width = self.vectors.shape
        return f"ItemVectors({count:,} items, {width} wide)"


class Scorer:
    """Scores and lists items for histories of any length, oldest item first.

    The model reads the last L - 1 items that it can score. All items of a history count as
    seen and are not listed, unless the model was trained to repeat items (`data.repeats`) or
    `keep_seen` is set. Ratings are on the scale of the training data, NaN for none. Every method
    raises `UserError` for invalid arguments. `ranker` is the bundle's own model. `answering` makes
    the lists: it is `ranker`, or both stages of a pipeline.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        batch_size: int,
        devices: Sequence[jax.Device] | None = None,
        filters: Filters = EVERYTHING,
    ) -> None:
        batch_size = require_whole(batch_size, "batch_size")
        require(batch_size >= 1, "batch_size", batch_size, "at least 1")
        require_a(Filters, filters, "filters")
        self.bundle = bundle
        self.reader = RequestReader.of(bundle)
        allowed = filters.allowed(bundle.catalog)
        self._listed = bundle.known & allowed
        functions = Functions(bundle, batch_size, devices, self._listed)
        self.ranker = Ranker(functions, self._listed, bundle)
        self.answering: Ranker | TwoStages = self.ranker
        if bundle.retriever is not None:
            found = bundle.retriever.known & self._listed  # no place for what cannot be ranked
            same = functions.devices
            finding = retrieval(bundle.retriever, batch_size, same, found, bundle.probes)
            first = Ranker(finding, found, bundle.retriever)
            self.answering = TwoStages(first, self.ranker, bundle.candidates, bundle.blend)

    @property
    def catalog(self) -> Catalog:
        """External ids and titles."""
        return self.bundle.catalog

    def lists(self, requests: Requests, *, top: int | None, keep_seen: bool | None = None) -> Lists:
        """A list for every request, in tokens; see `Ranker.rank` and `TwoStages.rank`."""
        keep = self.bundle.repeats if keep_seen is None else keep_seen
        return self.answering.rank(requests, top=top, keep_seen=keep)

    def rank(
        self,
        histories: Sequence[Ids],
        candidates: Sequence[Ids],
        *,
        exclude: Sequence[Ids] | None = None,
        ratings: Sequence[Ratings] | None = None,
        k: int | None = None,
        keep_seen: bool | None = None,
        users: Sequence[Facts | None] | None = None,
        timestamps: Sequence[Times] | None = None,
        request_time: RequestTime | None = None,
    ) -> list[Answer]:
        """Rank each history's candidates.

        Candidates are not listed if they are excluded, not in the catalog, without a score, or
        filtered out, or if they are in the history and `keep_seen` is off. Each is listed once.

        Args:
          histories: what each user has seen, oldest first.
          candidates: the items to rank for each user.
          exclude: ids that may not be listed for each user.
          ratings: one per item of each history.
          k: the largest length of a list; None for all candidates.
          keep_seen: also list items of the history. None: if the model was trained to repeat items.
          users: the features of each user, for a model that uses them.
          timestamps: when each item of each history was seen, ascending, for a model that reads
            times: seconds since 1970, or dates (text, or of Python or NumPy), in UTC if they have
            no time zone. None: when the request is made.
          request_time: when the request is made, for such a model, in the same forms; items that
            were seen later count as seen then. None: when its training data ends, or the history,
            if that is later.
        """
        return self._answers(
            k,
            keep_seen,
            histories,
            candidates=candidates,
            exclude=exclude,
            ratings=ratings,
            users=users,
            timestamps=timestamps,
            request_time=request_time,
        )

    def recommend(
        self,
        history: Ids,
        k: int = 10,
        exclude: Ids = (),
        *,
        ratings: Ratings | None = None,
        keep_seen: bool | None = None,
        user: Facts | None = None,
        timestamps: Times | None = None,
        request_time: RequestTime | None = None,
    ) -> Answer:
        """The best items of the whole catalog for one history, which may be empty; see `rank`."""
        return self._answers(
            k,
            keep_seen,
            [history],
            exclude=[exclude],
            ratings=None if ratings is None else [ratings],
            users=None if user is None else [user],
            timestamps=None if timestamps is None else [timestamps],
            request_time=request_time,
            place=of_one,
        )[0]

    def recommend_batch(
        self,
        histories: Sequence[Ids],
        k: int = 10,
        exclude: Sequence[Ids] | None = None,
        *,
        ratings: Sequence[Ratings] | None = None,
        keep_seen: bool | None = None,
        users: Sequence[Facts | None] | None = None,
        timestamps: Sequence[Times] | None = None,
        request_time: RequestTime | None = None,
    ) -> list[Answer]:
        """The best items of the whole catalog for each history; see `rank`."""
        return self._answers(
            k,
            keep_seen,
            histories,
            exclude=exclude,
            ratings=ratings,
            users=users,
            timestamps=timestamps,
            request_time=request_time,
        )

    def item_vectors(self) -> ItemVectors:
        """The vectors and biases of all items that can be listed; for a pipeline, the ranker's.

        A model's score of an item is `user_vector @ vector + bias`, plus the gain by covisitation
        if the bundle has it.
        """
        tokens = np.flatnonzero(self._listed)
        functions = self.ranker.functions
        return ItemVectors(
            tuple(self.catalog.item_id(int(token)) for token in tokens),
            np.asarray(functions.vectors)[tokens],
            np.asarray(functions.bias)[tokens],
        )

    def user_vectors(
        self,
        histories: Sequence[Ids],
        *,
        ratings: Sequence[Ratings] | None = None,
        users: Sequence[Facts | None] | None = None,
        timestamps: Sequence[Times] | None = None,
        request_time: RequestTime | None = None,
    ) -> npt.NDArray[np.float32]:
        """`[N, D]`: the model's encoding of each history; see `item_vectors` and `rank`."""
        return self.ranker.user_vectors(
            self.requests(
                histories,
                ratings=ratings,
                users=users,
                timestamps=timestamps,
                request_time=request_time,
            )
        )

    def similar(self, item: str | int, k: int = 10) -> Answer:
        """The items whose vectors have the largest cosine with that of one item.

        Raises:
          UserError: the catalog does not have the item, or the model cannot score it.
        """
        require_positive(k)
        token = self.catalog.token(str(item))
        if not self.bundle.known[token]:
            raise UserError(
                f"item {item!r} ({self.catalog.title(token)}) has no training event, so the model "
                "knows nothing of it"
            )
        cosines = self._directions @ self._directions[token]
        others = self._listed.copy()
        others[token] = False
        tokens = np.flatnonzero(others).astype(np.int32)
        best = list_order(cosines[tokens], tokens, np.zeros(len(tokens), np.int64))[:k]
        return self._named(tokens[best], cosines[tokens][best], [])

    @cached_property
    def _directions(self) -> npt.NDArray[np.float32]:
        """`[V, D]` item vectors of length 1; a zero vector stays zero."""
        width = self.bundle.manifest["model"]["dim"]  # without columns for the age of items
        vectors = np.asarray(self.ranker.functions.vectors)[:, :width]
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def requests(
        self,
        histories: Sequence[Ids],
        *,
        candidates: Sequence[Ids] | None = None,
        exclude: Sequence[Ids] | None = None,
        ratings: Sequence[Ratings] | None = None,
        users: Sequence[Facts | None] | None = None,
        timestamps: Sequence[Times] | None = None,
        request_time: RequestTime | None = None,
        place: Place = of_many,
    ) -> Requests:
        """The requests in tokens; see `rank` for the arguments, which `place` names in messages."""
        asked = id_lists("histories", histories, place)
        others = {
            name: id_lists(name, lists, place, ordered=False)
            for name, lists in (("candidates", candidates), ("exclude", exclude))
            if lists is not None
        }
        numbers = None if ratings is None else rating_lists(ratings, place)
        times = None if timestamps is None else time_lists(timestamps, place)
        if times is not None or request_time is not None:
            self.bundle.require_times()
        for name, lists in others.items():
            require_one_each(f"lists of {name}", lists, asked)
        for name, values in (("ratings", numbers), ("timestamps", times)):
            if values is not None:
                require_one_each(name, values, asked)
        table = table_of(asked, ratings=numbers, timestamps=times, **others)
        at = None if request_time is None else moment_of(request_time)
        if at is not None:
            require_in_training(at, self.bundle.trained_from, "the time of the request")
        requests = self.reader.read(table, partial(place, "histories"), request_time=at)
        if users is not None:
            requests = replace(requests, users=self.user_rows(users, len(asked), place))
        return requests

    def user_rows(
        self, users: Sequence[Facts | None], count: int, place: Place = of_many
    ) -> dict[UserEncoding, npt.NDArray[np.float32]]:
        """User encoding -> `[N, G]`: the features of N users, as in `Requests.users`.

        A user of whom nothing is known may be None.

        Raises:
          UserError: there are not N users, or a feature has a name or type that no model uses.
        """
        require_list("users", users, "the features of one user per history")
        if len(users) != count:
            raise UserError(f"{len(users)} users for {count} histories; give one each")
        given = [{} if facts is None else facts for facts in users]
        for row, facts in enumerate(given):
            require_facts(facts, place("users", row))
        columns = self.reader.user_columns
        unread = dict.fromkeys(name for facts in given for name in facts if name not in columns)
        if unread:
            stages = self.bundle.stages
            readers = [stage for stage in stages if stage.user_encoding] or stages
            paths = " and ".join(str(stage.path) for stage in readers)
            verb = "reads" if len(readers) == 1 else "read"
            what = ", ".join(columns) or "nothing of users"
            raise UserError(f"{paths} {verb} {what}; leave out {', '.join(unread)}")
        values = {name: [facts.get(name) for facts in given] for name in columns}
        return self.reader.users(values, count, partial(place, "users"))

    def _answers(
        self, k: int | None, keep_seen: bool | None, histories: Sequence[Ids], **others: Any
    ) -> list[Answer]:
        """A list for each history; `others` are more arguments of `requests`."""
        require_kind_of_lists(k, keep_seen)
        requests = self.requests(histories, **others)
        lists = self.lists(requests, top=k, keep_seen=keep_seen)
        asked = (histories, others.get("candidates"), others.get("exclude"))
        named = [
            list(dict.fromkeys(map(str, chain(*ids))))
            for ids in zip(*(given for given in asked if given is not None))
        ]
        unknown = set(self.reader.unknown([*chain(*named)]))
        scores = np.split(lists.scores, lists.items.offsets[1:-1])
        return [
            self._named(lists.items[row], scores[row], [name for name in ids if name in unknown])
            for row, ids in enumerate(named)
        ]

    def _named(
        self, tokens: npt.NDArray[np.int32], scores: npt.NDArray[np.float32], unknown: list[str]
    ) -> Answer:
        catalog = self.catalog
        return Answer(
            item_ids=tuple(catalog.item_id(token) for token in tokens),
            titles=tuple(catalog.title(int(token)) for token in tokens),
            scores=tuple(float(score) for score in scores),
            unknown=tuple(unknown),
        )
