"""Build: make the content of a store's catalog from its sources, ready for a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require
from bert4rec_jax.config import SplitName
from bert4rec_jax.data.cold import choose_cold
from bert4rec_jax.data.split import global_time, leave_one_out, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import Notify, UserError
from bert4rec_jax.features.cache import Progress
from bert4rec_jax.features.content import (
    Content,
    content_rows,
    release_days_of,
    require_replaceable,
    write_content,
)
from bert4rec_jax.features.coverage import Coverage, coverage_of, share
from bert4rec_jax.features.encoder import fit
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.movie import named
from bert4rec_jax.features.options import DEFAULTS, Options, TextOptions
from bert4rec_jax.features.shared_names import names_of
from bert4rec_jax.features.sources import NO_SOURCES, Sources, gather
from bert4rec_jax.features.text import Embedder

_LEAK = (
    "popularity, votes and revenue were read after the interactions they are to predict: results "
    "with this content know the future, say so where you report them"
)


@dataclass(frozen=True)
class BuiltContent:
    """Content that was written, and its coverage: of the metadata table, if any, then by block."""

    content: Content
    coverage: tuple[Coverage, ...]


def training_items(
    store: SequenceStore,
    split: SplitName = "leave-one-out",
    *,
    time_quantile: float = 0.9,
    test_from: int | None = None,
) -> npt.NDArray[np.bool_]:
    """`[len(catalog)]`: mask of the items with an interaction in the rows that selection trains on.

    For the cold-items split: those of leave-one-out that are not held out.

    Raises:
      ConfigError: there is no such split, or `time_quantile` is not in (0, 1).
    """
    require(0 < time_quantile < 1, "time_quantile", time_quantile, "in (0, 1)")
    splits = get_args(SplitName)
    require(split in splits, "split", split, f"one of {', '.join(splits)}")
    chosen = (
        global_time(store, quantile=time_quantile, test_from=test_from)
        if split == "global-time"
        else leave_one_out(store)
    )
    seen = train_counts(store, chosen.train_stop) > 0
    if split == "cold-items":
        seen &= ~choose_cold(store).either
    fitted: npt.NDArray[np.bool_] = seen[store.catalog.is_item()]
    return fitted


def build(
    store: SequenceStore,
    output: Path,
    *,
    fitted: npt.NDArray[np.bool_],
    sources: Sources = NO_SOURCES,
    options: Options = DEFAULTS,
    like: Encoding | None = None,
    text: TextOptions | None = None,
    embedder: Embedder | None = None,
    cache: Path | None = None,
    about: Mapping[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    notify: Notify = lambda sentence: None,
) -> BuiltContent:
    """Make the content of a store's catalog and write it as a folder.

    Args:
      store: has the catalog, and the interactions for the coverage.
      output: the folder to make, or earlier content to replace.
      fitted: `[len(catalog)]`: mask of the items that vocabularies, means and scales are fitted on;
        usually `training_items(store)`.
      sources: where the content comes from.
      options: which metadata become columns; not used with `like`.
      like: make the columns of this earlier content instead of fitting new ones, so that a model
        trained with it can continue.
      text, embedder, cache: see `sources.gather`.
      about: more entries of the manifest: `split`, `time_quantile` and `test_from` behind `fitted`.
        Without `split`, the content is refused under all splits but leave-one-out.
      progress: called with the number of texts that have an embedding, and of all texts.
      notify: called with a sentence the user should see.

    Raises:
      UserError: anything the user can fix; no partial output is left.
    """
    require_replaceable(output)
    catalog = store.catalog
    fitted = np.asarray(fitted)
    if fitted.dtype != bool or fitted.shape != (len(catalog),):
        raise UserError(
            f"fitted is of type {fitted.dtype} and shape {list(fitted.shape)}; expected a mask "
            f"(bool) of the {len(catalog):,} items, such as `training_items(store)`"
        )
    if like is not None:
        sources = like.as_before(sources, notify)
    known = gather(
        catalog,
        sources,
        others=(like.encoder.options if like else options).others,
        text=text,
        embedder=embedder,
        cache=cache,
        progress=progress,
        notify=notify,
    )
    if like is not None:
        columns = {span.name for span in like.encoder.spans()}
        unused = sorted(known.vectors.keys() - columns)
        if unused:
            raise UserError(
                f"the columns of earlier content have no block {unused[0]!r}; leave out where it "
                "comes from, or make content of its own"
            )
    continued = like is not None
    if like is None:
        if known.metadata and (sentence := known.metadata.unread_sentence()):
            notify(sentence)
        encoder = fit(known.movies, fitted, options=options, vectors=known.vectors)
        like = Encoding(encoder, known.text)
    encoder, rows = like.encoder, like.encode(known)
    counts = np.bincount(store.tokens, minlength=catalog.num_rows)[catalog.is_item()]
    coverage = coverage_of(encoder.spans(), rows, counts)
    report = [entry for block in coverage.values() for entry in block]
    if continued:
        _tell_what_is_lost(coverage, notify)
    if known.metadata:
        name = f"rows by {known.metadata.id_column}"
        report.insert(0, share(name, encoder.width, known.metadata.matched, counts))
    if encoder.options.leaky:
        notify(_LEAK)
    content = write_content(
        output,
        catalog,
        content_rows(catalog, rows),
        encoder,
        {
            "fitted_items": int(fitted.sum()),
            "leaky": encoder.options.leaky,
            "id_column": known.metadata.id_column if known.metadata else like.id_column,
            "separator": sources.separated_by if known.metadata else like.separator,
            "sources": sources.files(),
            "text": known.text,
            "blocks": [
                {
                    **dataclasses.asdict(span),
                    "coverage": [dataclasses.asdict(entry) for entry in coverage[span.name]],
                }
                for span in encoder.spans()
            ],
            **(about or {}),
        },
        named(catalog, known.movies) if known.metadata else None,
        release_days_of(catalog, known.movies),
        names_of(known.movies, encoder.options.others.names),
    )
    return BuiltContent(content, tuple(report))


def _tell_what_is_lost(coverage: Mapping[str, Sequence[Coverage]], notify: Notify) -> None:
    """Name the blocks of earlier content of which nothing is known any more."""
    lost = [name for name, parts in coverage.items() if not any(part.items for part in parts)]
    if lost:
        notify(
            f"nothing is known of {', '.join(lost)} here, which the earlier content has: a model "
            "that was trained with it reads them as missing for every item"
        )
