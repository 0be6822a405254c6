"""Grouped logs: a row per user, with lists of items, expanded to a row per interaction."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bert4rec_jax.data.fields import Where
from bert4rec_jax.errors import UserError


def is_list(kind: pa.DataType) -> bool:
    """Whether values of a type are lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def exploded(batch: Mapping[str, pa.Array], where: Where) -> tuple[dict[str, pa.Array], Where, int]:
    """Expand lists to a row per interaction, in the order of the lists.

    Example: the row (a, [x, y]) becomes (a, x) and (a, y). A row whose list of items is empty or
    null holds no interaction.

    Args:
      batch: role -> column; all but the user hold lists, of equal lengths within a row.
      where: maps a row of the batch to its place, for messages.

    Returns:
      The columns, a `where` for the interactions, and the number of rows that hold none.

    Raises:
      UserError: two lists of a row differ in length.
    """
    lengths = _lengths(batch["item"])
    for role, column in batch.items():
        if role in ("user", "item"):
            continue
        others = _lengths(column)
        if (others != lengths).any():
            row = int((others != lengths).argmax())
            raise UserError(
                f"{where(row)}: items: {lengths[row]}, {role}s: {others[row]}; the lists of a row "
                "need the same length: fix or remove the row"
            )
    rows = np.repeat(np.arange(len(lengths)), lengths)
    before = np.cumsum(lengths) - lengths

    def entry(number: int) -> str:
        row = int(rows[number])
        return f"{where(row)}, entry {number - before[row] + 1}"

    lists = {role: pc.list_flatten(column) for role, column in batch.items() if role != "user"}
    return {"user": batch["user"].take(pa.array(rows)), **lists}, entry, int((lengths == 0).sum())


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    lengths = pc.list_value_length(column).fill_null(0)
    return np.asarray(lengths.to_numpy(zero_copy_only=False), np.int64)
