"""`bert4rec add-items`: new releases in a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape


def add_items(
    source: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SOURCE")],
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    metadata: Path | None = None,
    id_column: str | None = None,
    separator: str | None = None,
    embeddings: Path | None = None,
    ids: tuple[str, ...] = (),
    skip_known: bool = False,
    skip_unknown: bool = False,
    offset: float | None = None,
    dtype: Literal["float32", "bfloat16", "int8"] = "float32",
    text_model: str | None = None,
    cache: Path | None = None,
) -> None:
    """Add new releases to a trained model without training. Their scores come from their content.

    Args:
        source: A bundle, or the folder of a training run, whose model knows content.
        bundle: The folder to make; an earlier bundle there is replaced, also SOURCE itself.
        metadata: Table of the new items, as for `bert4rec features`.
        id_column: Id column of the table. None: the one that was named when the content was made,
            or else the known one with most ids of the model.
        separator: Separator of lists within one field of the table. None: as when the content was
            made.
        embeddings: Precomputed embeddings of the new items, if the model's content has them.
        ids: Only add these items. Empty: all of the table.
        skip_known: Leave out items of the table that the model has already, as of a whole catalog.
        skip_unknown: Leave out items about which nothing is known, which could not be scored.
        offset: Added to the scores of all items without a training event. None: as calibrated.
        dtype: Type of the weights, as for `bert4rec export`; SOURCE itself has to be in float32.
        text_model: Folder of the text model, if the model's texts were embedded by a local one.
        cache: Cache folder of text embeddings. None: a subfolder of the download cache.
    """
    from bert4rec_jax.features.sources import Sources
    from bert4rec_jax.serving.add_items import add_items

    console = Console(stderr=True)
    manifest = add_items(
        source,
        bundle,
        sources=Sources(metadata, id_column, None, separator, embeddings),
        ids=ids,
        skip_known=skip_known,
        skip_unknown=skip_unknown,
        offset=offset,
        dtype=dtype,
        text_model=text_model,
        cache=cache,
        console=console,
        notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
    )
    added = manifest.get("added_items", 0)
    Console().print(
        f"{escape(str(bundle))}: {manifest['items']:,} items, {added:,} of them added after "
        "training",
        highlight=False,
        soft_wrap=True,
    )
