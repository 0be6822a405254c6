"""State: what a visitor has chosen. It is kept in the query string of the URL and nowhere else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlencode

from bert4rec_jax.errors import UserError

NONE, UP, DOWN = "n", "u", "d"


@dataclass(frozen=True)
class Seen:
    """A movie that was seen, and its thumb: NONE, UP or DOWN."""

    item_id: str
    thumb: str = NONE


@dataclass(frozen=True)
class State:
    """A history, oldest first, and the movie to explain.

    In a URL: `?seen=n:ID&seen=u:ID&why=0:ID`.

    Attributes:
      seen: the movies of the history; one that was seen several times is there as often.
      why: number of the model and id of the movie to explain, or None.
    """

    seen: tuple[Seen, ...] = ()
    why: tuple[int, str] | None = None

    @classmethod
    def read(cls, query: Iterable[tuple[str, str]]) -> State:
        """Read a state from the fields of a URL; other fields and malformed ones are ignored."""
        seen = []
        why = None
        for name, value in query:
            head, _, item_id = value.partition(":")
            if name == "seen" and head in (NONE, UP, DOWN) and item_id:
                seen.append(Seen(item_id, head))
            if name == "why" and head.isdecimal() and len(head) < 4 and item_id:
                why = (int(head), item_id)
        return cls(tuple(seen), why)

    @property
    def once(self) -> State:
        """The same history with every movie once, where it was seen first."""
        first: dict[str, Seen] = {}
        for movie in self.seen:
            first.setdefault(movie.item_id, movie)
        return replace(self, seen=tuple(first.values()))

    @property
    def names(self) -> list[str]:
        """The name of each movie of `seen` in an action: `NTH:ID`, its NTH viewing in the list."""
        times: Counter[str] = Counter()
        found = []
        for movie in self.seen:
            times[movie.item_id] += 1
            found.append(f"{times[movie.item_id]}:{movie.item_id}")
        return found

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The fields of the URL, from which `read` makes an equal state."""
        fields = [("seen", f"{movie.thumb}:{movie.item_id}") for movie in self.seen]
        return fields + ([("why", f"{self.why[0]}:{self.why[1]}")] if self.why else [])

    @property
    def address(self) -> str:
        """The URL of the page with this state."""
        return f"/?{urlencode(self.fields)}" if self.fields else "/"

    def after(self, action: str) -> State:
        """The state after a button was pressed.

        Args:
          action: `add.ID`, `why.MODEL:ID`, `clear.`, or one on a movie of `names`: `up.NAME`,
            `down.NAME` (move by one place), `remove.NAME`, `like.NAME`, `dislike.NAME` (the second
            time, the thumb is removed).

        Raises:
          UserError: there is no such action, or the movie to change is not in the history.
        """
        name, _, about = action.partition(".")
        if name == "clear":
            return State()
        if name == "why":
            return replace(self, why=State.read([("why", about)]).why)
        if name == "add":
            return State((*self.seen, Seen(about)))
        if about not in self.names:
            raise UserError(f"{about.partition(':')[2]!r} is not in the history")
        place = self.names.index(about)
        movies = list(self.seen)
        if name == "remove":
            del movies[place]
        elif name in ("up", "down"):
            other = place + (1 if name == "down" else -1)
            if 0 <= other < len(movies):
                movies[place], movies[other] = movies[other], movies[place]
        elif name in ("like", "dislike"):
            thumb = UP if name == "like" else DOWN
            given = NONE if movies[place].thumb == thumb else thumb
            movies[place] = replace(movies[place], thumb=given)
        else:
            raise UserError(f"{name!r} is no action of this page")
        return replace(self, seen=tuple(movies))
