"""Models: the bundles that a page compares, and their lists for what a visitor has seen."""

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
      name: name of the bundle.
      answer: the list; empty if there is a problem.
      unknown: titles of items in the history that are not in this model's catalog.
      problem: an error message for the visitor; empty if all went well.
    """

    name: str
    answer: Answer
    unknown: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Why:
    """Why a model lists a movie.

    Attributes:
      title: title of the movie.
      name: name of the model.
      drawn: the picture, as SVG.
      has_attention: whether the picture shows attention heads; a tower without layers has none.
      by_ranker: whether the model is a pipeline, of which only the ranker is explained.
    """

    title: str
    name: str
    drawn: str
    has_attention: bool
    by_ranker: bool


class Models:
    """Loaded models. Titles are those of the first one; all get the same item ids.

    Args:
      scorers: the name and the loaded bundle of each model; at least one.
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
        self._asked = threading.Lock()  # requests come in several threads; answer one at a time

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
        """The first model's catalog, with titles and genres."""
        return self._scorers[0].catalog

    @property
    def has_titles(self) -> bool:
        """Whether the catalog has titles other than the ids."""
        return self.catalog.titles != self.catalog.item_ids

    @property
    def kinds(self) -> list[str]:
        """A description of each model, or of the stages of a pipeline."""
        return [_kind(scorer.bundle) for scorer in self._scorers]

    @property
    def read_thumbs(self) -> list[bool]:
        """For each model, whether it reads thumbs."""
        return [bool(scorer.bundle.manifest["model"]["thumbs"]) for scorer in self._scorers]

    @property
    def repeat(self) -> bool:
        """Whether an item can be seen several times: for models trained with `data.repeats`."""
        return any(scorer.bundle.repeats for scorer in self._scorers)

    def title(self, item_id: str) -> str:
        """The title of an item; the id itself if it is not in the catalog."""
        catalog = self.catalog
        return catalog.title(catalog.token(item_id)) if item_id in catalog else item_id

    def genres(self, item_id: str) -> str:
        """The genres of an item, separated by commas, by the first model that knows any."""
        for catalog in (scorer.catalog for scorer in self._scorers):
            found = catalog.genres_of(catalog.token(item_id)) if item_id in catalog else ()
            if found:
                return ", ".join(found)
        return ""

    def has(self, item_id: str) -> bool:
        """Whether the first model's catalog has the movie."""
        return item_id in self.catalog

    def find(self, text: str) -> str:
        """The id of the item that a text means.

        Raises:
          UserError: no item fits, or several do.
        """
        if not text.strip():
            raise UserError("type a title first")
        return self.catalog.item_id(find_item(self.catalog, text))

    def suggest(self, text: str) -> list[tuple[str, str]]:
        """What to type, and a label to show, for items whose titles contain a text; best first."""
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

        def typed(i: int) -> str:  # a title may be that of several items, or the id of another
            title, item = catalog.titles[i], catalog.item_ids[i]
            return title if times[title] == 1 and title not in catalog else item

        return [(typed(i), catalog.titles[i]) for _, i in found[:_SUGGESTED]]

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
        """Explain the item that `state.why` names.

        Raises:
          UserError: there is nothing to explain, or see `explain`.
        """
        number, item = state.why or (-1, "")
        if not 0 <= number < len(self._scorers):
            raise UserError("there is no such model on this page")
        scorer = self._scorers[number]
        history, ratings, left_out = self._question(number, state)
        known = [(i, r) for i, r in zip(history, ratings) if _knows(scorer, i)]
        if not known:
            raise UserError(_nothing_to_leave_out(history, left_out))
        seen, rated = [i for i, _ in known], [r for _, r in known]
        with self._asked:
            found = explain(scorer, seen, item, ratings=rated, exclude=left_out)
        return Why(
            found.title,
            self.names[number],
            picture(found),
            has_attention=found.attention.size > 0,
            by_ranker=scorer.bundle.retriever is not None,
        )

    def _question(self, number: int, state: State) -> tuple[list[str], list[float], list[str]]:
        """A model's input for a state: ids, ratings, and ids that it may not list.

        For a model that reads no thumbs, disliked items are left out of the history, and may not
        be listed.
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
    kind = bundle.manifest["model"]["kind"]
    own = _KINDS.get(kind, kind)
    if bundle.retriever is None:
        return own
    return f"{_kind(bundle.retriever)} find {bundle.candidates:,} candidates, {own} orders them"


def _nothing_to_leave_out(history: Sequence[str], left_out: Sequence[str]) -> str:
    if history:
        return "this model knows none of these items, so there is nothing to explain by"
    if left_out:
        return (
            "this model does not read items with a thumb down, and there is no other item; add "
            "one, or change a thumb"
        )
    return "without a history there is nothing to leave out; add an item first"


def _knows(scorer: Scorer, item_id: str) -> bool:
    return item_id in scorer.catalog
