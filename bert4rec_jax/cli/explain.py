"""`bert4rec explain`: why an item is recommended."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from bert4rec_jax.cli.recommend import facts


def explain(
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    history: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TITLE ...")],
    item: str | None = None,
    masked: str | None = None,
    picture: Path | None = None,
    user: tuple[str, ...] = (),
    request_time: str | None = None,
) -> None:
    """Show why an item is recommended: the influence and attention of each item in a history.

    Of a pipeline, score and place are those of its ranker over the whole catalog.

    Args:
        bundle: A folder made by `bert4rec export` or `bert4rec pipeline`.
        history: Titles or item ids, oldest first. Titles may be slightly misspelled.
        item: The item to explain, by title or id. None: the first recommendation.
        masked: An item of the history to mask and predict, with and without the items after it.
            None: the middle one.
        picture: SVG file to write.
        user: User features, for a model that reads them, such as gender=F age=35; repeat a name for
            a list: tags=a tags=b.
        request_time: Date, with or without a time (UTC), for a model that reads times. None: when
            its training data ends.
    """
    from bert4rec_jax.outputs import require_folder_of
    from bert4rec_jax.serving.explanation_display import show_explanation

    known = facts(user) if user else None
    if picture:
        require_folder_of(picture)
    show_explanation(bundle, history, item, masked, picture, known, request_time)
