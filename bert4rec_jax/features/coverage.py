"""Coverage: the share of items and interactions for which a block of content has data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich import box
from rich.markup import escape
from rich.table import Table

from bert4rec_jax.features.encoder import Span


@dataclass(frozen=True)
class Coverage:
    """The shares of a catalog that something covers.

    Attributes:
      name: a block, a part of one, or the metadata table.
      columns: number of columns of the block; 0 for a part of one.
      items: share of the catalog's items, in [0, 1].
      interactions: share of all interactions that are with these items.
    """

    name: str
    columns: int
    items: float
    interactions: float


def share(
    name: str, columns: int, covered: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64]
) -> Coverage:
    """The coverage of some items.

    Args:
      name: see `Coverage`.
      columns: see `Coverage`.
      covered: `[n]`: mask of the items.
      counts: `[n]`: interactions of each item.
    """
    return Coverage(
        name, columns, float(covered.mean()), float(counts[covered].sum() / max(counts.sum(), 1))
    )


def coverage_of(
    spans: Sequence[Span], rows: npt.NDArray[np.float32], counts: npt.NDArray[np.int64]
) -> dict[str, list[Coverage]]:
    """Block -> its coverage, followed by that of its parts if they have names of their own.

    A block covers an item if any of its parts does.

    Args:
      spans: the blocks.
      rows: `[n, F]`: the content of n items.
      counts: `[n]`: interactions of each item.
    """
    found = {}
    for span in spans:
        known = {part: rows[:, column] == 0 for part, column in span.missing.items()}
        anything = np.any(list(known.values()), axis=0)
        found[span.name] = [share(span.name, span.stop - span.start, anything, counts)]
        if span.missing.keys() != {span.name}:
            parts = (share(part, 0, which, counts) for part, which in known.items())
            found[span.name].extend(parts)
    return found


def table(title: str, coverages: Sequence[Coverage]) -> Table:
    """The coverage report: a line per block, with the parts of a block indented."""
    shown = Table(title=escape(title), box=box.SIMPLE_HEAD)
    shown.add_column("block")
    for name in ("columns", "items covered", "interactions covered"):
        shown.add_column(name, justify="right")
    for entry in coverages:
        columns = f"{entry.columns:,}" if entry.columns else ""
        name = entry.name if entry.columns else f"  {entry.name}"
        shown.add_row(escape(name), columns, f"{entry.items:.1%}", f"{entry.interactions:.1%}")
    return shown
