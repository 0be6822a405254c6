"""Inputs: the data and item content that a config names; a raw log is prepared first."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.console import Console

from bert4rec_jax.checks import seconds_of
from bert4rec_jax.config import DataConfig
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.named import NAMES
from bert4rec_jax.data.prepare import is_prepared_from, prepare
from bert4rec_jax.data.store import SequenceStore, is_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.likeness import Likeness
from bert4rec_jax.features.content import Content, content_rows
from bert4rec_jax.features.encoder import fit as fit_encoder
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.movie import movies_of
from bert4rec_jax.features.options import Options
from bert4rec_jax.features.shared_names import names_of, sets_of
from bert4rec_jax.features.sources import KnownMovies
from bert4rec_jax.processes import done_by_first, everywhere
from bert4rec_jax.training.run_record import check_same_config, read_config, read_data


@dataclass(frozen=True, eq=False)
class KnownContent:
    """The content features of a catalog's items.

    Attributes:
      matrix: `[V, F]`, 0 for items without content.
      encoding: what computed the matrix.
      names: the catalog with the titles and genres of the content, or None.
      release_days: `[V]`, see `Content.release_days`; or None.
      shared_names: see `Content.shared_names`; or None.
    """

    matrix: npt.NDArray[np.float32]
    encoding: Encoding
    names: Catalog | None = None
    release_days: npt.NDArray[np.float32] | None = None
    shared_names: pa.Table | None = None


def open_data(
    config: DataConfig, workdir: Path, console: Console, *, finished: bool = False
) -> SequenceStore:
    """Open the store at `config.path`, or prepare that log once, to a store kept in the workdir.

    For a `finished` run, the store kept in the workdir is opened without looking at the log, which
    may have changed or be gone: the run was trained on that store.

    Raises:
      UserError: the workdir holds a run on other data; or see `prepare`, `SequenceStore.open` and
        its `verify`.
    """
    given, kept = Path(config.path), workdir / "data"
    prepared = is_store(given)
    if not everywhere(prepared) and not everywhere(not prepared):
        is_one = "is a prepared log" if prepared else "is no prepared log"
        raise UserError(
            f"data.path {given} {is_one} in this process of the run, unlike in others; give a "
            "folder that all hosts see, or copy the log to the same place on each"
        )
    if prepared:
        store = SequenceStore.open(given)
        _require_minima(store, config)
    else:
        if not (finished and is_store(kept)):
            _prepare_once(config, workdir, kept, console)
        store = SequenceStore.open(kept)
    store.verify()
    return store


def _prepare_once(config: DataConfig, workdir: Path, kept: Path, console: Console) -> None:
    """Prepare a log to the store `kept` in a workdir, unless that is made from it already."""
    saved = read_config(workdir)
    if saved is not None:  # check before the data of that run is replaced
        asked = {**saved, "data": {**saved["data"], **_minima(config)}}
        check_same_config(saved, asked, workdir)

    def prepare_log() -> None:
        if saved is not None:
            _refuse_another_log(config, workdir, kept, saved["data"]["path"])
        if is_prepared_from(kept, config.path, **_minima(config)):
            return
        changed = UserError(
            f"{config.path} has changed since the run in {workdir} was trained on it; put the "
            "log back as it was to continue, or train on the new one in another --workdir"
        )
        if saved is not None and is_store(kept):
            raise changed
        made = prepare(
            config.path,
            kept,
            **_minima(config),
            notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
        ).store
        # With cold items, a run trains on a rearrangement of this store.
        rearranged = config.split == "cold-items"
        if saved is not None and not rearranged and made.fingerprint != read_data(workdir):
            shutil.rmtree(kept)  # or the log could not be put back
            raise changed

    done_by_first(f"prepare the log {config.path}", prepare_log)


def _minima(config: DataConfig) -> dict[str, Any]:
    """The filters that a log is prepared with."""
    return {
        "min_user_interactions": config.min_user_interactions,
        "min_item_interactions": config.min_item_interactions,
    }


def _refuse_another_log(config: DataConfig, workdir: Path, kept: Path, then: str) -> None:
    """Refuse a log that is elsewhere than the one of a run was, unless it holds the same."""
    if then == config.path:
        return
    named = config.path in NAMES  # told by its name alone, which a folder may have too
    if not named and not Path(config.path).exists():
        raise UserError(f"{config.path} does not exist; {workdir} holds a run on the log {then}")
    if named or not is_prepared_from(kept, config.path, **_minima(config)):
        raise UserError(
            f"{workdir} holds a run on the log {then}, and {config.path} does not hold the "
            "same; give that log to continue it, or another --workdir"
        )


def _require_minima(store: SequenceStore, config: DataConfig) -> None:
    """Refuse non-default minimum interaction counts that a store was not prepared with."""
    for name in ("min_user_interactions", "min_item_interactions"):
        wanted, made = getattr(config, name), store.manifest["source"].get(name)
        if made is not None and wanted not in (made, getattr(DataConfig(), name)):
            option = name.replace("_", "-")
            raise UserError(
                f"data.{name} is {wanted}, but {store.path} was prepared with {made}; give "
                f"--data.{option} {made}, or prepare the log again with --{option} {wanted}"
            )


def open_content(
    config: DataConfig,
    store: SequenceStore,
    counts: npt.NDArray[np.int64],
    console: Console,
    like: Encoding | None = None,
    *,
    begins: bool = False,
) -> KnownContent | None:
    """Read the items' content features, or compute them from the catalog.

    None if `config.content` is empty, or if it is `catalog` and the log has no genres and years.

    Args:
      config: its `content` is a folder made by `bert4rec features`, or `catalog` for the genres and
        years that came with the titles.
      store: the data.
      counts: `[V]` training interactions per token; the encoding of `catalog` is fitted only on
        items that have any.
      console: gets a message if the catalog has neither genres nor years.
      like: the encoding to use for `catalog`; None to fit one on these items.

    Raises:
      UserError: see `Content.open` and `encoder.fit`.
    """
    if not config.content:
        return None
    catalog = store.catalog
    if config.content != "catalog":
        content = Content.open(Path(config.content), catalog)
        _refuse_leak(content, config, begins=begins)
        matrix = np.where(content.present()[:, None], content.matrix, 0)
        return KnownContent(
            matrix, content.encoding, content.names, content.release_days, content.shared_names
        )
    movies = movies_of(catalog)
    fitted = counts[catalog.is_item()] > 0
    if not any(movie.genres or movie.year for movie in movies):
        console.print(
            "  the items have neither genres nor years: in the model they are known by their ids "
            "alone"
        )
        return None
    options = Options(blocks=("genres", "numbers"))
    encoding = like or Encoding(fit_encoder(movies, fitted, options=options), None)
    rows = encoding.rows(KnownMovies(movies, {}, None, None))
    return KnownContent(content_rows(catalog, rows), encoding)


def likeness_of(
    config: DataConfig, catalog: Catalog, content: KnownContent | None
) -> Likeness | None:
    """What the items of a catalog have in common, by their content; None for items known by id.

    Of content made by earlier versions, only titles and genres are compared by name. So are they
    where the content is that of the `catalog`, also if that has no more than titles.
    """
    if not config.content:
        return None
    names = None if content is None else content.shared_names
    if names is None:
        known = None if content is None else content.names
        names = names_of(movies_of(known or catalog))
    values = {} if content is None else content.encoding.encoder.values(content.matrix)
    return Likeness(sets_of(names, catalog), values)


def _refuse_leak(content: Content, config: DataConfig, *, begins: bool) -> None:
    """Refuse content whose vocabularies and scales were fitted on data this split holds out.

    A run that begins from an earlier one has to keep the columns of that run.
    """
    made = content.manifest
    split = made.get("split")
    same = split == config.split and (
        split != "global-time"
        or (made.get("time_quantile"), _moment(made.get("test_from")))
        == (config.time_quantile, _moment(config.test_from))
    )
    if same or config.split == "leave-one-out":
        return
    if begins and "like" in made:
        return
    quantile = f" --time-quantile {config.time_quantile}" if config.split == "global-time" else ""
    quantile += f" --test-from {config.test_from!r}" if config.test_from else ""
    fitted = (
        f"was fitted on the training part of the {split} split, which holds"
        if split
        else ("does not say for which split it was fitted, so it may have seen")
    )
    raise UserError(
        f"the content in {content.path} {fitted} items of the test under {config.split}; make it "
        "for this split: "
        f"`bert4rec features ... --split {config.split}{quantile}`"
    )


def _moment(date: str | None) -> float | None:
    return seconds_of(date) if date else None
