"""Vocabulary: names that have a column of their own, and hashed columns for all other names."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

_WHOLE = re.compile(r"(-?\d+)\.0+")
_TRUTHS = ("true", "false")


@dataclass(frozen=True)
class Vocabulary:
    """Names with a column each, followed by hashed buckets for the rest. Frozen once fitted.

    With the names (Drama, War) and 2 buckets, Drama is column 0, War 1, anything else 2 or 3, the
    same on every machine. Without buckets other names have no column.

    Codes and truths have a column however a table writes them: with the name 3, `3.0` is in its
    column, and with true, so is `True`, as pandas writes them into CSV.

    Attributes:
      names: by decreasing count, then by name.
      buckets: number of columns that share the other names.
    """

    names: tuple[str, ...]
    buckets: int

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.names) + self.buckets

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {name: column for column, name in enumerate(self.names)}

    @cached_property
    def _forms(self) -> dict[str, int]:
        return {_form(name): column for name, column in reversed(self._columns.items())}

    def columns(self, names: Sequence[str]) -> list[int]:
        """The columns of some names, each column once, in ascending order."""
        return sorted({column for name in names if (column := self._column(name)) is not None})

    def _column(self, name: str) -> int | None:
        known = self._columns.get(name)
        if known is None:
            known = self._forms.get(_form(name))
        if known is not None or not self.buckets:
            return known
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).digest()
        return len(self.names) + int.from_bytes(digest[:8], "big") % self.buckets

    @classmethod
    def fit(
        cls, rows: Iterable[Sequence[str]], *, min_count: int, top: int, buckets: int
    ) -> Vocabulary:
        """Fit the vocabulary on some items.

        Args:
          rows: the names of each item; a name that repeats within an item counts once.
          min_count: names of fewer items have no column of their own.
          top: maximum number of names with a column of their own, the most frequent first.
          buckets: see `Vocabulary`.
        """
        counts = Counter(name for names in rows for name in set(names))
        frequent = [name for name, count in counts.items() if count >= min_count]
        frequent.sort(key=lambda name: (-counts[name], name))
        return cls(tuple(frequent[:top]), buckets)


def _form(name: str) -> str:
    """What names are the same by: whole numbers without `.0`, and truths in lower case."""
    whole = _WHOLE.fullmatch(name)
    if whole:
        return whole[1]
    return name.lower() if name.lower() in _TRUTHS else name
