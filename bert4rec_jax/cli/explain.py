"""`bert4rec explain`: why a movie is recommended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def explain(
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    history: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TITLE ...")],
    item: str | None = None,
    masked: str | None = None,
    picture: Path | None = None,
) -> None:
    """Show why a movie is recommended: what each movie of a history does, and where heads look.

    Args:
        bundle: A folder made by `bert4rec export`.
        history: Titles or item ids, oldest first; small mistakes are forgiven.
        item: The movie to explain, by title or id. None: the first recommendation.
        masked: A movie of the history to hide and guess, without what came after it and with it.
            None: the middle one.
        picture: SVG file to write.
    """
    from bert4rec_jax.serving.explanation_display import show_explanation

    show_explanation(bundle, history, item, masked, picture)
