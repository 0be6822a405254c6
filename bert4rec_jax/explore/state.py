"""State: what a visitor has chosen. It is kept in the query string of the URL and nowhere else."""

from __future__ import annotations

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
      seen: the movies of the history, each once.
      why: number of the model and id of the movie to explain, or None.
    """

    seen: tuple[Seen, ...] = ()
    why: tuple[int, str] | None = None

    @classmethod
    def read(cls, query: Iterable[tuple[str, str]]) -> State:
        """Read a state from the fields of a URL; other fields and malformed ones are ignored.

        A movie that is named twice counts once.
        """
        seen: dict[str, Seen] = {}
        why = None
        for name, value in query:
            head, _, item_id = value.partition(":")
            if name == "seen" and head in (NONE, UP, DOWN) and item_id:
                seen.setdefault(item_id, Seen(item_id, head))
            if name == "why" and head.isdecimal() and len(head) < 4 and item_id:
                why = (int(head), item_id)
        return cls(tuple(seen.values()), why)

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
          action: `up.ID`, `down.ID` (move by one place), `remove.ID`, `like.ID`, `dislike.ID` (the
            second time, the thumb is removed), `add.ID`, `why.MODEL:ID`, `clear.`

        Raises:
          UserError: there is no such action, or the movie to change is not in the history.
        """
        name, _, item_id = action.partition(".")
        if name == "clear":
            return State()
        if name == "why":
            return replace(self, why=State.read([("why", item_id)]).why)
        if name == "add":
            known = any(movie.item_id == item_id for movie in self.seen)
            return self if known else State((*self.seen, Seen(item_id)))
        movies = list(self.seen)
        place = next((i for i, movie in enumerate(movies) if movie.item_id == item_id), None)
        if place is None:
            raise UserError(f"{item_id!r} is not in the history")
        if name == "remove":
            del movies[place]
        elif name in ("up", "down"):
            other = place + (1 if name == "down" else -1)
            if 0 <= other < len(movies):
                movies[place], movies[other] = movies[other], movies[place]
        elif name in ("like", "dislike"):
            thumb = UP if name == "like" else DOWN
            movies[place] = Seen(item_id, NONE if movies[place].thumb == thumb else thumb)
        else:
            raise UserError(f"{name!r} is no action of this page")
        return replace(self, seen=tuple(movies))
