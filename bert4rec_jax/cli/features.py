"""`bert4rec features`: metadata and texts to content."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bert4rec_jax.features.options import USUAL, BlockName


def features(
    store: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    *,
    output: Path,
    metadata: Path | None = None,
    id_column: str | None = None,
    id_map: Path | None = None,
    separator: str = "|",
    blocks: tuple[BlockName, ...] = USUAL,
    min_count: int = 5,
    keywords: int = 512,
    cast: int = 256,
    crew: int = 128,
    companies: int = 32,
    buckets: int = 16,
    leaky_columns: bool = False,
    split: Literal["leave-one-out", "global-time", "cold-items"] = "leave-one-out",
    time_quantile: float = 0.9,
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
    """Turn metadata and texts of movies into content for the items of a store.

    Args:
        store: A folder made by `bert4rec prepare`.
        output: The folder to make; earlier content there is replaced.
        metadata: Table of movies as TMDB has them: Parquet, CSV or JSON. None: only the titles,
            years and genres of the store.
        id_column: Column of ids in the table. None: the one that matches most items.
        id_map: File with two columns, an item's id in the store and in the table, if they differ.
        separator: Between the names of a list in one field of the table.
        blocks: Blocks of columns to make. Keywords, cast and crew have so many columns that a log
            of some thousand movies learns them by heart.
        min_count: Items of the training part that a name needs for a column of its own.
        keywords: Most keywords with a column of their own.
        cast: Most actors with one.
        crew: Most directors and writers with one.
        companies: Most companies with one.
        buckets: Columns that all other names of a list share.
        leaky_columns: Also popularity, votes and revenue, which know the future.
        split: Whose training part vocabularies and scales are fitted on.
        time_quantile: The moment of the global-time split.
        text: Embed titles, taglines and overviews with a language model (extra: text).
        text_model: Its name or folder; turns `text` on. None: google/embeddinggemma-300m.
        text_revision: Commit or tag of the model. None: the newest.
        text_prompt: Form of the text, with {title} and {text}. None: as the model wants it.
        truncate_dim: Keep so many numbers of each embedding. None: all.
        text_batch_size: Texts that the model reads at once.
        cache: Folder of embeddings computed earlier. None: content in the cache of downloads.
        embeddings: Embeddings computed elsewhere (.npy in the store's order, Parquet with ids).
        like: Earlier content whose columns to make, for a model that goes on with newer data.
    """
    from bert4rec_jax.data.store import SequenceStore
    from bert4rec_jax.features.build import build, training_items
    from bert4rec_jax.features.content import read_encoding
    from bert4rec_jax.features.coverage import table
    from bert4rec_jax.features.options import Options, TextOptions
    from bert4rec_jax.features.sources import Sources
    from bert4rec_jax.features.text import DEFAULT_MODEL

    read = SequenceStore.open(store)
    model = text_model or (DEFAULT_MODEL if text else None)
    console = Console(stderr=True)
    bar = Progress(TextColumn("texts"), BarColumn(), MofNCompleteColumn(), console=console)
    with bar if model else nullcontext():
        task = bar.add_task("texts", total=None)
        built = build(
            read,
            output,
            fitted=training_items(read, split, time_quantile=time_quantile),
            sources=Sources(metadata, id_column, id_map, separator, embeddings),
            options=Options(
                blocks, min_count, keywords, cast, crew, companies, buckets, leaky_columns
            ),
            like=read_encoding(like) if like else None,
            text=TextOptions(model, text_revision, text_prompt, truncate_dim, text_batch_size)
            if model
            else None,
            cache=cache,
            about={"split": split, "time_quantile": time_quantile},
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
        )
    Console().print(table(f"content {output}", built.coverage))
