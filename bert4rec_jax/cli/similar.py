"""`bert4rec similar`: items like one item."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def similar(
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    title: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TITLE")],
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10,
) -> None:
    """Show the items whose learned vectors are closest to that of one item.

    Args:
        bundle: A folder made by `bert4rec export`, or by `bert4rec pipeline` (its ranker is used).
        title: A title or an item id. The title may be slightly misspelled.
        k: Length of the list.
    """
    from bert4rec_jax.serving.display import show_similar

    show_similar(bundle, title, k)
