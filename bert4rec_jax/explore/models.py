"""Models: the bundles that a page compares, asked with what a visitor has seen."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.explore.state import DOWN, UP, Seen, State
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.lookup import find_item
from bert4rec_jax.serving.picture import picture
from bert4rec_jax.serving.scorer import Answer, Scorer, load

_SUGGESTED = 12
_KINDS = {"bert4rec": "BERT4Rec", "two-tower": "Two towers"}


@dataclass(frozen=True)
class Listed:
    """One model's list.

    Attributes:
      name: of the bundle.
      answer: its list; empty where there is a problem.
      unknown: titles of movies that this model does not have.
      problem: what went wrong, in words for the visitor.
    """

    name: str
    answer: Answer
    unknown: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Why:
    """Why a model lists a movie.

    Attributes:
      title: of the movie.
      name: of the model.
      drawn: the picture, as SVG.
      has_attention: whether there are heads in it; a tower without layers has none.
      by_ranker: whether the model is a pipeline, whose ranker alone is explained.
    """

    title: str
    name: str
    drawn: str
    has_attention: bool
    by_ranker: bool


class Models:
    """Models, loaded. Titles are those of the first; the others are asked by the same ids.

    Args:
      scorers: a name and a bundle, loaded, for each; at least one.
      k: length of the lists.

    Raises:
      UserError: k is below 1.
    """

    def __init__(self, scorers: Sequence[tuple[str, Scorer]], k: int) -> None:
        if k < 1:
            raise UserError(f"k is {k}; expected at least 1")
        self.names = [name for name, _ in scorers]
        self._scorers = [scorer for _, scorer in scorers]
        self._k = k
        self._asked = threading.Lock()  # requests come in several threads; models answer one

    @classmethod
    def open(cls, bundles: Sequence[Path], k: int) -> Models:
        """Load folders made by `bert4rec export` or `bert4rec pipeline`.

        Raises:
          UserError: see `Bundle.open`; or k is below 1.
        """
        names = [bundle.resolve().name for bundle in bundles]
        if len(set(names)) < len(names):
            names = [str(bundle) for bundle in bundles]
        return cls([(name, load(b, batch_size=64)) for name, b in zip(names, bundles)], k)

    @property
    def catalog(self) -> Catalog:
        """Titles and genres."""
        return self._scorers[0].catalog

    @property
    def has_titles(self) -> bool:
        """Whether movies are known by more than their ids."""
        return self.catalog.titles != self.catalog.item_ids

    @property
    def kinds(self) -> list[str]:
        """What each model is, in words; of a pipeline, what its stages are."""
        return [_kind(scorer.bundle) for scorer in self._scorers]

    @property
    def read_thumbs(self) -> list[bool]:
        """For each model, whether it reads thumbs."""
        return [bool(scorer.bundle.manifest["model"]["thumbs"]) for scorer in self._scorers]

    def title(self, item_id: str) -> str:
        """The title of a movie; the id itself where it is unknown."""
        catalog = self.catalog
        return catalog.title(catalog.token(item_id)) if item_id in catalog else item_id

    def genres(self, item_id: str) -> str:
        """Genres, separated by commas."""
        catalog = self.catalog
        return ", ".join(catalog.genres_of(catalog.token(item_id))) if item_id in catalog else ""

    def has(self, item_id: str) -> bool:
        """Whether the first model's catalog has the movie."""
        return item_id in self.catalog

    def find(self, text: str) -> str:
        """The id of the movie that a text means.

        Raises:
          UserError: none, or several.
        """
        if not text.strip():
            raise UserError("type a title first")
        return self.catalog.item_id(find_item(self.catalog, text))

    def suggest(self, text: str) -> list[tuple[str, str]]:
        """What to type, and a name to show, for movies whose titles hold a text; best first."""
        wanted = text.casefold().strip()
        if not wanted:
            return []
        catalog = self.catalog
        found = [
            (wanted_at, i)
            for i, title in enumerate(catalog.titles)
            if (wanted_at := title.casefold().find(wanted)) >= 0
        ]
        found.sort(key=lambda pair: (pair[0] > 0, pair[1]))
        times = Counter(catalog.titles)
        return [
            (title if times[title] == 1 else catalog.item_ids[i], title)
            for _, i in found[:_SUGGESTED]
            for title in [catalog.titles[i]]
        ]

    def lists(self, state: State) -> list[Listed]:
        """Every model's list."""
        found = []
        with self._asked:
            for number, (name, scorer) in enumerate(zip(self.names, self._scorers)):
                history, ratings, left_out = self._question(number, state)
                try:
                    answer = scorer.recommend(history, self._k, left_out, ratings=ratings)
                except UserError as error:
                    found.append(Listed(name, Answer((), (), ()), problem=str(error)))
                    continue
                unknown = tuple(self.title(item) for item in answer.unknown)
                found.append(Listed(name, answer, unknown))
        return found

    def why(self, state: State) -> Why:
        """What explains a movie.

        Raises:
          UserError: there is nothing to explain, or see `explain`.
        """
        number, item = state.why or (-1, "")
        if not 0 <= number < len(self._scorers):
            raise UserError("there is no such model on this page")
        scorer = self._scorers[number]
        history, ratings, _ = self._question(number, state)
        known = [(i, r) for i, r in zip(history, ratings) if _knows(scorer, i)]
        if not known:
            raise UserError("without a history there is nothing to leave out; add a movie first")
        with self._asked:
            found = explain(scorer, [i for i, _ in known], item, ratings=[r for _, r in known])
        return Why(
            found.title,
            self.names[number],
            picture(found),
            has_attention=found.attention.size > 0,
            by_ranker=scorer.bundle.retriever is not None,
        )

    def _question(self, number: int, state: State) -> tuple[list[str], list[float], list[str]]:
        """What a model reads of a state: ids, ratings, and ids that it may not list.

        A model that reads no thumbs is not told of what was disliked.
        """
        up = self._scorers[number].bundle.thumbs[0]
        ratings = {UP: up, DOWN: up - 1}

        def is_read(movie: Seen) -> bool:
            return self.read_thumbs[number] or movie.thumb != DOWN

        read = [movie for movie in state.seen if is_read(movie)]
        return (
            [movie.item_id for movie in read],
            [ratings.get(movie.thumb, float("nan")) for movie in read],
            [movie.item_id for movie in state.seen if not is_read(movie)],
        )


def _kind(bundle: Bundle) -> str:
    own = _KINDS[bundle.manifest["model"]["kind"]]
    if bundle.retriever is None:
        return own
    return f"{_kind(bundle.retriever)} find {bundle.candidates:,} candidates, {own} orders them"


def _knows(scorer: Scorer, item_id: str) -> bool:
    return item_id in scorer.catalog
