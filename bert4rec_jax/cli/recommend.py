"""`bert4rec recommend`: a list for one person."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from bert4rec_jax.cli.stages import CANDIDATES, chosen_bundle


def recommend(
    bundle_and_titles: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[BUNDLE] [TITLE ...]")
    ],
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10,
    retriever: Path | None = None,
    ranker: Path | None = None,
    candidates: int = CANDIDATES,
    blend: float = 0.0,
    genres: tuple[str, ...] = (),
    years: tuple[int, int] | None = None,
    only: Path | None = None,
    user: tuple[str, ...] = (),
    request_time: str | None = None,
) -> None:
    """Show what a model recommends to someone who has seen these items.

    Args:
        bundle_and_titles: A folder made by `bert4rec export` or `bert4rec pipeline` (not with
            --ranker), then titles or item ids, oldest first. Titles may be slightly misspelled.
        k: Length of the list.
        retriever: With --ranker, instead of BUNDLE: the bundle that finds candidates.
        ranker: The bundle that ranks the candidates.
        candidates: Number of candidates.
        blend: Weight of the retriever's scores in the final ranking; see `bert4rec pipeline`.
        genres: Only list items of at least one of these genres. Empty: all items.
        years: Only list items whose title ends in a year of this range.
        only: Only list items of this file: text, one item id per line.
        user: User features, for a retriever that reads them, such as gender=F age=35; repeat a name
            for a list: tags=a tags=b.
        request_time: Date, with or without a time (UTC), for a model that reads times. None: when
            its training data ends.
    """
    from bert4rec_jax.serving.display import show_recommendations
    from bert4rec_jax.serving.filters import Filters

    given, titles = (None, bundle_and_titles)
    if ranker is None and bundle_and_titles:
        given, titles = Path(bundle_and_titles[0]), bundle_and_titles[1:]
    with chosen_bundle(given, retriever, ranker, candidates, blend) as opened:
        filters = Filters(genres, years, only)
        known = facts(user) if user else None
        show_recommendations(opened, titles, k, filters, known, request_time)


def facts(given: tuple[str, ...]) -> dict[str, str | list[str]]:
    """Name -> value, or values where a name repeats, from texts `name=value`.

    Raises:
      UserError: a text without `=`.
    """
    from bert4rec_jax.errors import UserError

    found: dict[str, list[str]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--user {text}: expected name=value, such as age=35")
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}
