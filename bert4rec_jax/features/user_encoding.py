"""UserEncoding: encodes user features as rows of numbers; frozen once it is fitted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.errors import UserError
from bert4rec_jax.features.user_columns import (
    NameColumn,
    UserColumn,
    UserNumber,
    Where,
    fit_column,
)
from bert4rec_jax.features.vocabulary import Vocabulary

SCHEMA_VERSION = 1
_KINDS = {"names": NameColumn, "number": UserNumber}

UserRows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class UserEncoding:
    """User columns side by side. Users added later are encoded as the first ones were.

    Attributes:
      columns: in their order, at least one.
    """

    columns: tuple[UserColumn, ...]

    @property
    def width(self) -> int:
        """Number of columns G of a row."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(column.name for column in self.columns)

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the features whose values are names themselves, and no numbers."""
        return tuple(column.name for column in self.columns if isinstance(column, NameColumn))

    def encode(self, values: Mapping[str, Sequence[Any]], count: int, where: Where) -> UserRows:
        """`[n, G]`: the rows of n users.

        Args:
          values: name -> n values, see `user_columns`; a feature that is not in it is missing for
            all users.
          count: n.
          where: the place of each user, for messages.

        Raises:
          UserError: a value is of a different kind than those the column was fitted on.
        """
        nothing = [None] * count
        parts = [column.encode(values.get(column.name, nothing), where) for column in self.columns]
        return np.concatenate(parts, axis=1)

    def unknown(self, count: int) -> UserRows:
        """`[n, G]`: the rows of n users about whom nothing is known."""
        return np.tile(self.encode({}, 1, str), (count, 1))

    def to_json(self) -> dict[str, Any]:
        """The encoding as values for JSON, from which `from_json` makes an equal one."""
        kinds = {kind: name for name, kind in _KINDS.items()}
        columns = [{"kind": kinds[type(x)], **dataclasses.asdict(x)} for x in self.columns]
        return {"schema_version": SCHEMA_VERSION, "columns": columns}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> UserEncoding:
        """The encoding that `to_json` wrote.

        Raises:
          UserError: another version wrote it.
        """
        try:
            if values["schema_version"] != SCHEMA_VERSION:
                raise ValueError(f"schema {values['schema_version']}")
            return cls(tuple(map(_column, values["columns"])))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"the encoding of user features was written by another version ({error}; this one "
                f"reads schema {SCHEMA_VERSION}); train and export again"
            ) from None


def fit(
    values: Mapping[str, Sequence[Any]], fitted: npt.NDArray[np.bool_], where: Where
) -> UserEncoding:
    """Fit the encoding on some users; see `fit_column`."""
    return UserEncoding(tuple(fit_column(name, x, fitted, where) for name, x in values.items()))


def _column(values: dict[str, Any]) -> UserColumn:
    fields = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] == "names":
        vocabulary = fields.pop("vocabulary")
        names = tuple(vocabulary["names"])
        return NameColumn(vocabulary=Vocabulary(names, vocabulary["buckets"]), **fields)
    return UserNumber(**fields)
