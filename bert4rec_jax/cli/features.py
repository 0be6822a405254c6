"""`bert4rec features`: metadata and texts to content."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bert4rec_jax.config import SplitName
from bert4rec_jax.features.options import USUAL, BlockName


def features(
    store: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    *,
    output: Path,
    metadata: Path | None = None,
    id_column: str | None = None,
    id_map: Path | None = None,
    separator: str | None = None,
    name_columns: tuple[str, ...] = (),
    number_columns: tuple[str, ...] = (),
    text_columns: tuple[str, ...] = (),
    blocks: tuple[BlockName, ...] = USUAL,
    min_count: int = 5,
    keywords: int = 512,
    cast: int = 256,
    crew: int = 128,
    companies: int = 32,
    buckets: int = 16,
    leaky_columns: bool = False,
    split: SplitName = "leave-one-out",
    time_quantile: float = 0.9,
    test_from: str = "",
    text: bool = False,
    text_model: str | None = None,
    text_revision: str | None = None,
    text_prompt: str | None = None,
    truncate_dim: int | None = None,
    text_batch_size: int = 32,
    cache: Path | None = None,
    embeddings: Path | None = None,
    like: Path | None = None,
) -> None:
    """Turn metadata and texts of movies, or of other items, into content for a store.

    Args:
        store: A folder made by `bert4rec prepare`.
        output: The folder to make; earlier content there is replaced.
        metadata: Table of movies in TMDB's schema, or of other items: Parquet, CSV, TSV or JSON.
            None: only the titles, years and genres of the store.
        id_column: Id column of the table. None: the one of `like`, if it was named then, or else
            the one of item_id, imdb_id, tmdb_id, id, movielens_id and movieId that matches most
            items.
        id_map: File with two columns that maps item ids of the store to ids of the table.
        separator: Separator of lists within one field of the table. None: the one of `like`, or
            else a vertical bar.
        name_columns: Other columns of the table that hold categories or lists of them, such as the
            brand of a product.
        number_columns: Other columns of the table that hold numbers, such as its price.
        text_columns: Other columns of the table that hold texts to embed, such as its description.
        blocks: Feature blocks to make. Keywords, cast and crew have so many columns that a model
            overfits them on a log of a few thousand movies.
        min_count: Training items in which a name must occur to get its own column.
        keywords: Maximum number of keywords with their own column.
        cast: Maximum number of actors with their own column.
        crew: Maximum number of directors and writers with their own column.
        companies: Maximum number of companies with their own column.
        buckets: Hashed columns shared by all other names of a list.
        leaky_columns: Also use popularity, votes and revenue, which leak the future.
        split: Fit vocabularies and scales on the training part of this split.
        time_quantile: Split point of the global-time split.
        test_from: Split point of the global-time split as a date, as data.test-from of training.
            Empty: time_quantile.
        text: Embed titles, taglines, overviews and `text_columns` with a language model (extra:
            text).
        text_model: Name or folder of that model; turns `text` on. None: google/embeddinggemma-300m.
        text_revision: Commit or tag of the model. None: the newest.
        text_prompt: Prompt template with {title} and {text}. None: the model's own.
        truncate_dim: Keep only the first dimensions of each embedding (Matryoshka). None: all.
        text_batch_size: Texts per batch of the language model.
        cache: Cache folder of text embeddings. None: a subfolder of the download cache.
        embeddings: Precomputed embeddings (.npy in the store's item order, or Parquet with ids).
        like: Make the same columns as this earlier content, to continue a model on newer data.
    """
    _require_effect(dict(locals()))
    import numpy as np

    from bert4rec_jax.checks import seconds_of
    from bert4rec_jax.data.store import SequenceStore
    from bert4rec_jax.features.build import build, training_items
    from bert4rec_jax.features.content import made_for, read_encoding
    from bert4rec_jax.features.coverage import table
    from bert4rec_jax.features.options import Options, OtherColumns, TextOptions
    from bert4rec_jax.features.sources import Sources
    from bert4rec_jax.features.text import DEFAULT_MODEL

    others = OtherColumns(name_columns, number_columns, text_columns)
    options = Options(
        blocks, min_count, keywords, cast, crew, companies, buckets, leaky_columns, others
    )
    read = SequenceStore.open(store)
    read.verify()
    model = text_model or (DEFAULT_MODEL if text else None)
    console = Console(stderr=True)
    bar = Progress(TextColumn("texts"), BarColumn(), MofNCompleteColumn(), console=console)
    with bar if model else nullcontext():
        task = bar.add_task("texts", total=None)
        built = build(
            read,
            output,
            fitted=np.ones(len(read.catalog), bool)  # nothing is fitted
            if like
            else training_items(
                read,
                split,
                time_quantile=time_quantile,
                test_from=seconds_of(test_from) if test_from else None,
            ),
            sources=Sources(metadata, id_column, id_map, separator, embeddings),
            options=options,
            like=read_encoding(like) if like else None,
            text=TextOptions(model, text_revision, text_prompt, truncate_dim, text_batch_size)
            if model
            else None,
            cache=cache,
            about=made_for(like)
            if like
            else {"split": split, "time_quantile": time_quantile, "test_from": test_from},
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
        )
    Console().print(table(f"content {output}", built.coverage))


_Given = Mapping[str, Any]
_LISTS = ("keywords", "cast", "crew", "companies")
# What options need to have an effect: how that is called, whether it is there, and the options.
_NEEDS: tuple[tuple[str, Callable[[_Given], Any], tuple[str, ...]], ...] = (
    (
        "--metadata",
        lambda given: given["metadata"],
        ("separator", "leaky_columns", "name_columns", "number_columns", "text_columns"),
    ),
    (
        "--text or --text-model",
        lambda given: given["text"] or given["text_model"],
        (
            "text_columns",
            "text_revision",
            "text_prompt",
            "truncate_dim",
            "text_batch_size",
            "cache",
        ),
    ),
    (
        "--split global-time",
        lambda given: given["split"] == "global-time",
        ("time_quantile", "test_from"),
    ),
    ("--blocks ... keywords", lambda given: "keywords" in given["blocks"], ("keywords",)),
    ("--blocks ... cast", lambda given: "cast" in given["blocks"], ("cast",)),
    ("--blocks ... crew", lambda given: "crew" in given["blocks"], ("crew",)),
    ("--blocks ... companies", lambda given: "companies" in given["blocks"], ("companies",)),
    (
        "--blocks other than numbers, or --name-columns",
        lambda given: {*given["blocks"]} - {"numbers"} or given["name_columns"],
        ("min_count",),
    ),
    (
        "--blocks of keywords, cast, crew or companies, or --name-columns",
        lambda given: {*given["blocks"]}.intersection(_LISTS) or given["name_columns"],
        ("buckets",),
    ),
    ("--metadata", lambda given: given["metadata"], (*_LISTS, "buckets")),  # titles have none
)
_FITTED = (
    "blocks", "min_count", "keywords", "cast", "crew", "companies", "buckets", "leaky_columns",
    "name_columns", "number_columns", "text_columns", "split", "time_quantile", "test_from",
)  # fmt: skip


def _require_effect(given: _Given) -> None:
    """Check that every option given, by name, has an effect beside the others.

    Raises:
      UserError: one has none, or names no model.
    """
    from bert4rec_jax.errors import UserError

    usual = {name: x.default for name, x in inspect.signature(features).parameters.items()}
    changed = {name for name, value in given.items() if value != usual[name]}
    if given["text_model"] == "":  # as of a variable of the shell that is not set
        raise UserError(
            "--text-model is empty; expected a name on the Hugging Face hub or a folder: name the "
            "model, or leave the option out"
        )
    if given["like"] and changed.intersection(_FITTED):
        raise UserError(
            "--like makes the columns of earlier content; leave out the options that choose "
            "columns, and the split that they are fitted for"
        )
    for needed, is_there, names in _NEEDS:
        useless = [name for name in names if name in changed]
        if useless and not is_there(given):
            name = useless[0]
            raise UserError(
                f"--{name.replace('_', '-')} has no effect without {needed}; add that, or leave "
                "it out"
            )
