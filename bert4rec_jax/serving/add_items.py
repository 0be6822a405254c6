"""Adding items: adds new releases to a trained model by their content, without training."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from itertools import compress
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flax.traverse_util import unflatten_dict
from rich.console import Console

from bert4rec_jax.checks import require, require_a, require_number
from bert4rec_jax.config import Config, DataConfig, MaskingConfig, ModelConfig
from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.errors import Notify, UserError, warn
from bert4rec_jax.evaluation.lift import COLLECTION
from bert4rec_jax.features.cache import Progress
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.movie import release_days
from bert4rec_jax.features.releases import named_releases, read_releases
from bert4rec_jax.features.sources import Sources, gather
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.serving.arguments import id_list
from bert4rec_jax.serving.bundle import ENCODING, Bundle, is_bundle, require_replaceable
from bert4rec_jax.serving.export import ORIGIN, TrainedModel, read_run, write_bundle
from bert4rec_jax.serving.traced import SEPARATOR, by_path
from bert4rec_jax.serving.weights import Dtype, require_dtype
from bert4rec_jax.training.parts import build_model

# Paths of variables. For untrained items with content, the model does not read the first two.
_IDS = ("params/item_table/embedding", "params/item_table/bias")
_FEATURES = "catalog/item_table/features"
_TRAINED = "catalog/item_table/trained"
_OFFSET = "catalog/item_table/offset"
_FIRST_DAY = "catalog/request_time/first_day"
_BEGIN_DAY = "catalog/request_time/begin_day"
_DATED = "catalog/request_time/dated"
_COUNTED = tuple(f"{COLLECTION}/{name}" for name in ("followers", "ratios", "covered"))
_UNCOVERED = f"{COLLECTION}/uncovered"
_UNCOUNTED = f"{COLLECTION}/uncounted"
_ADDED = "added_items"
_FIELDS = ("item_ids", "titles", "genres")  # of a catalog


def add_items(
    source: str | PathLike[str],
    output: str | PathLike[str],
    *,
    sources: Sources,
    ids: Collection[str | int] = (),
    skip_known: bool = False,
    skip_unknown: bool = False,
    offset: float | None = None,
    dtype: Dtype = "float32",
    text_model: str | None = None,
    cache: str | PathLike[str] | None = None,
    console: Console | None = None,
    progress: Progress = lambda done, total: None,
    notify: Notify | None = None,
) -> dict[str, Any]:
    """Write a bundle of a trained model with items that it was not trained on.

    Args:
      source: a bundle, or the folder of a run.
      output: the bundle to make; an earlier bundle there is replaced, even if it is `source`.
      sources: a table of the new items, their embeddings, or both.
      ids: the only items of the table to add; or, without a table, those of the embeddings.
      skip_known: leave out items of the table that the model has, instead of refusing them. If no
        other items are left, no items are added to the model in `output`.
      skip_unknown: leave out items about which nothing is known, instead of refusing them.
      offset: added to the bias of all items without a training event, those that the model has
        already included. None: as calibrated.
      dtype: how the weights of `output` are stored; see `serving.weights`.
      text_model: the folder of the model that embedded the texts, if it was a local one.
      cache: folder of embedded texts.
      console: shows messages while data is prepared, if `source` is a run.
      progress: called with the number of texts embedded so far, and of all.
      notify: called with a sentence the user should see. None: one about a likely mistake is a
        Python warning, and others, about what was asked for, are not shown.

    Returns:
      The manifest.

    Raises:
      UserError: the model was trained without content, the offset is no finite number, or the items
        are not valid; see `read_releases`, `Encoding.rows` and `grow`.
    """
    source, output, ids = Path(source), Path(output), id_list("ids", ids)
    require_a(Sources, sources, "sources")
    if offset is not None:
        offset = require_number(offset, "offset")
        require(math.isfinite(offset), "offset", offset, "a finite number")
    require_dtype(dtype)
    require_replaceable(output)
    trained = open_source(source, console=console or Console(quiet=True))
    assert trained.encoding is not None
    others = trained.encoding.encoder.options.others
    sources = trained.encoding.as_before(sources, notify or warn)
    notify = notify or _say_nothing
    if sources.metadata:
        column, new = read_releases(
            sources.metadata,
            trained.catalog,
            id_column=sources.id_column,
            usual_column=sources.usual_column,
            ids=ids,
            skip_known=skip_known,
            separator=sources.separated_by,
            others=others,
        )
        sources = replace(sources, id_column=column)
        if not len(new):
            notify(f"nothing to add: {source} knows all items of {sources.metadata} already")
            return write_bundle(_with_offset(trained, offset), output, dtype=dtype)
    elif not ids:
        raise UserError("which items to add? Give a table of metadata, or their ids")
    else:
        new = named_releases(ids, trained.catalog)
    known = gather(
        new,
        sources,
        others=others,
        text=trained.encoding.text_options(text_model),
        text_dim=trained.encoding.text_dim(),
        cache=None if cache is None else Path(cache),
        progress=progress,
        notify=notify,
    )
    rows = trained.encoding.rows(known)
    days = release_days(known.movies)
    if skip_unknown:
        described = (rows != 0).any(axis=1)
        new, rows, days = _described(new, described, notify), rows[described], days[described]
        if not len(new):
            notify(f"nothing to add: nothing is known about the items that {source} does not have")
            return write_bundle(_with_offset(trained, offset), output, dtype=dtype)
    grown = _with_offset(grow(trained, new, rows, days), offset)
    return write_bundle(grown, output, dtype=dtype)


def _say_nothing(sentence: str) -> None:
    """Show no sentence."""


def _described(new: Catalog, known: npt.NDArray[np.bool_], notify: Notify) -> Catalog:
    """The items about which something is known."""
    if known.all():
        return new
    notify(
        f"left out {int((~known).sum()):,} of {len(new):,} items to add, about which nothing is "
        f"known, such as {new.item_ids[int(known.argmin())]!r}"
    )
    return Catalog(*(tuple(compress(getattr(new, x), known)) for x in _FIELDS))


def open_source(source: Path, *, console: Console) -> TrainedModel:
    """Read a trained model from a bundle or from the folder of a run.

    Raises:
      UserError: it is neither, cannot be read, or was trained without content.
    """
    trained = read_bundle(source) if is_bundle(source) else read_run(source, console=console)
    if trained.encoding is None:
        raise UserError(
            f"the model in {source} knows its items by their ids alone, so it could not know new "
            "ones; train it with content: --data.content"
        )
    return trained


def read_bundle(path: Path) -> TrainedModel:
    """Read the trained model that a bundle was made from.

    Raises:
      UserError: see `Bundle.open`; or it is a pipeline, or its parameters are rounded.
    """
    bundle = Bundle.open(path)
    if bundle.retriever is not None:
        raise UserError(
            f"{path} is a pipeline of two models; add the items to each of its parts (or to their "
            "runs) and join them again with `bert4rec pipeline`"
        )
    manifest, parameters = bundle.manifest, bundle.parameters()
    dtype = manifest.get("dtype", "float32")  # missing in bundles of earlier versions
    if dtype != "float32":
        raise UserError(
            f"the weights of {path} are rounded to {dtype}; add the items to the run or to its "
            f"bundle in float32, with --dtype {dtype} to have them rounded again"
        )
    config = Config(
        data=DataConfig(max_length=bundle.max_length, repeats=bundle.repeats),
        model=ModelConfig(**manifest["model"]),
        masking=MaskingConfig(objective=manifest["objective"]),
    )
    return TrainedModel(
        config=config,
        model=_model(config, parameters),
        variables=unflatten_dict(parameters, sep=SEPARATOR),
        catalog=bundle.catalog,
        known=bundle.known,
        thumbs=bundle.thumbs,
        origin={name: manifest[name] for name in (*ORIGIN, _ADDED) if name in manifest},
        encoding=_encoding(bundle),
        user_encoding=bundle.user_encoding,
    )


def _encoding(bundle: Bundle) -> Encoding | None:
    if ENCODING not in bundle.manifest["checksums"]:
        return None
    return Encoding.from_json(json.loads(bundle.files.read(ENCODING)))


def _model(config: Config, parameters: Mapping[str, Any]) -> SequenceModel:
    features = parameters.get(_FEATURES)
    return build_model(
        config.model,
        num_rows=len(parameters[_IDS[0]]),
        max_length=config.data.max_length,
        content_dim=0 if features is None else features.shape[1],
    )


def _with_offset(trained: TrainedModel, offset: float | None) -> TrainedModel:
    """The model with another offset of items without a training event; None: as it is."""
    if offset is None:
        return trained
    flat = {**by_path(trained.variables), _OFFSET: np.array(offset, np.float32)}
    origin = {**trained.origin, "corrections_sha256": None, "metrics": None}  # of the run's offset
    return replace(trained, variables=unflatten_dict(flat, sep=SEPARATOR), origin=origin)


def grow(
    trained: TrainedModel,
    new: Catalog,
    rows: npt.NDArray[np.float32],
    days: npt.NDArray[np.float32] | None = None,
) -> TrainedModel:
    """Append items to a model. The scores of trained items do not change.

    Args:
      trained: the model.
      new: the items to add.
      rows: `[len(new), F]`, the content of each; no row may be all zeros.
      days: `[len(new)]`, the day of release of each, in days since 1970, NaN where it is not known;
        for a model that reads times and knows such days. None: of no item.

    Raises:
      UserError: an item has no content.
    """
    unknown = [item for item, row in zip(new.item_ids, rows) if not row.any()]
    if unknown:
        raise UserError(
            f"nothing is known about {len(unknown):,} of {len(new):,} items to add, such as "
            f"{unknown[0]!r}, so they could not be scored; add what is known to the table, or "
            "leave them out (--skip-unknown does)"
        )
    old = trained.catalog
    catalog = Catalog(*(getattr(old, x) + getattr(new, x) for x in _FIELDS))
    added = slice(FIRST_ITEM + len(old), FIRST_ITEM + len(catalog))

    def taller(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        grown = np.zeros((catalog.num_rows, *values.shape[1:]), values.dtype)
        grown[: len(values)] = values
        return grown

    flat = {name: np.asarray(value) for name, value in by_path(trained.variables).items()}
    flat |= {
        name: taller(flat[name])
        for name in (*_IDS, _FEATURES, _TRAINED, _FIRST_DAY, *_COUNTED, _UNCOVERED, _UNCOUNTED)
        if name in flat
    }
    for name in (_UNCOVERED, _UNCOUNTED):
        if name in flat:  # bundles of earlier versions lack them
            flat[name][added] = 1
    flat[_FEATURES][added] = rows
    if _FIRST_DAY in flat and days is not None and flat[_DATED]:
        begin = flat[_BEGIN_DAY]
        flat[_FIRST_DAY][added] = np.where(np.isfinite(days), np.maximum(days, begin), 0)
    known = taller(trained.known)
    known[added] = True
    return replace(
        trained,
        model=_model(trained.config, flat),
        variables=unflatten_dict(flat, sep=SEPARATOR),
        catalog=catalog,
        known=known,
        origin={**trained.origin, _ADDED: trained.origin.get(_ADDED, 0) + len(new)},
    )
