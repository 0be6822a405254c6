"""Export: writes the best checkpoint of a run as a bundle. No other serving module opens runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from safetensors.numpy import save

import bert4rec_jax
from bert4rec_jax.checks import require_path
from bert4rec_jax.config import Config
from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.data.store import sha256
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.metrics_file import METRICS, about, read_metrics
from bert4rec_jax.experiment.finished import FinishedRun, as_served, open_finished
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.outputs import whole_folder
from bert4rec_jax.serving.bundle import (
    CATALOG,
    ENCODING,
    MANIFEST,
    PARAMETERS,
    SCHEMA_VERSION,
    USER_ENCODING,
    function_file,
    require_replaceable,
)
from bert4rec_jax.serving.traced import Serving, by_path, signature, trace
from bert4rec_jax.serving.weights import Dtype, require_dtype, stored
from bert4rec_jax.sharding import to_host
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.inputs import Trained

# JAX's promise: an export can be read by later versions for six months.
_READABLE = timedelta(days=180)
ORIGIN = (
    "step", "parameters_sha256", "corrections_sha256", "all_events", "data_fingerprint", "metrics",
    "trained_from", "trained_until",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model, with everything that a bundle holds.

    Attributes:
      config: the run's config.
      model: the Flax module.
      variables: its nested variable collections.
      catalog: the items; they give the rows of the item table their meaning.
      known: `[V]`, items that the model can score.
      thumbs: the lowest ratings that mean thumbs up and two thumbs up.
      origin: JSON values for the manifest that say where the model comes from; see ORIGIN.
      encoding: encodes the content of new items; None for a model without content.
      user_encoding: encodes user features; None for a model without them.
    """

    config: Config
    model: SequenceModel
    variables: Any
    catalog: Catalog
    known: npt.NDArray[np.bool_]
    thumbs: tuple[float, float]
    origin: Mapping[str, Any]
    encoding: Encoding | None = None
    user_encoding: UserEncoding | None = None


def export(
    run: str | PathLike[str],
    bundle: str | PathLike[str],
    *,
    dtype: Dtype = "float32",
    console: Console | None = None,
) -> dict[str, Any]:
    """Write the model of a run as a bundle; an earlier bundle there is replaced.

    It is that of the final fit, if the run has one, and the best checkpoint otherwise.

    Args:
      run: the workdir of a run, finished or not.
      bundle: the folder to make; it appears whole or not at all.
      dtype: how weights are stored; see `serving.weights`.
      console: shows messages while data is prepared, if necessary.

    Returns:
      The manifest.

    Raises:
      UserError: the run has no checkpoint that can be read; its parameters are not finite; `dtype`
        is unknown; or `bundle` exists and is no bundle, or cannot be written.
    """
    run, bundle = require_path(run, "run"), require_path(bundle, "bundle")
    require_dtype(dtype)
    require_replaceable(bundle)
    trained = read_run(run, console=console or Console(quiet=True))
    return write_bundle(trained, bundle, dtype=dtype)


def read_run(run: Path, *, console: Console) -> TrainedModel:
    """Read the model of a run to serve: that of its final fit if it has one, else the tested one.

    Raises:
      UserError: the run has no checkpoint that can be read.
    """
    tested = open_finished(run, console)
    finished = as_served(tested, console)
    setting, best = finished.setting, finished.best
    store = setting.store
    if finished.all_events:
        console.print("  the model is that of the final fit, trained on all events")
    else:
        _tell_what_is_missing(finished, console)
    variables = jax.tree.map(to_host, finished.variables())
    parameters = digest(tested.best.state.params)
    return TrainedModel(
        config=setting.config,
        model=setting.model(),
        variables=variables,
        catalog=setting.catalog,
        known=setting.scored(finished.trained),
        thumbs=setting.thumbs,
        origin={
            "step": best.step,
            "parameters_sha256": digest(best.state.params),
            "corrections_sha256": finished.corrections.digest,
            "all_events": finished.all_events,
            "data_fingerprint": store.fingerprint,
            **_span(finished.trained),
            "metrics": _metrics(run, setting.name, parameters, tested.corrections.digest),
        },
        encoding=setting.encoding,
        user_encoding=setting.user_encoding,
    )


def _span(trained: Trained) -> dict[str, int]:
    """When the log begins and the training events end, for a model that reads times."""
    dates = trained.dates
    return {} if dates is None else {"trained_from": dates.begin, "trained_until": dates.until}


def _tell_what_is_missing(finished: FinishedRun, console: Console) -> None:
    setting, store = finished.setting, finished.setting.source
    scored = setting.scored(finished.trained)
    watched = np.bincount(store.tokens, minlength=len(scored)) > 0
    unlisted = int((watched & ~scored).sum())
    remedy = "; the training command with --final-fit trains it on all events"
    held_out = "the test" if setting.split.refits else "validation and test"
    console.print(
        f"  the model was trained without the events held out for {held_out}"
        + (f"; items without others are never listed: {unlisted:,}" if unlisted else "")
        + ("" if setting.config.data.split == "cold-items" else remedy),
        highlight=False,
        soft_wrap=True,
    )


def write_bundle(
    trained: TrainedModel, bundle: Path, *, dtype: Dtype = "float32"
) -> dict[str, Any]:
    """Write a bundle and return its manifest; an earlier bundle there is replaced.

    Raises:
      UserError: parameters are not finite, or `bundle` is no bundle, or it cannot be written.
    """
    require_replaceable(bundle)
    variables = by_path(trained.variables)
    for path, value in variables.items():
        if not np.isfinite(value).all():
            raise UserError(f"parameter {path} is not finite: the model is broken; train again")
    config = trained.config
    max_length = config.data.max_length
    causal = config.masking.objective == "next"
    params = stored(variables, dtype)
    users = trained.user_encoding
    user_dim = users.width if users else 0
    serving = Serving(trained.model, max_length, causal, dtype, user_dim)
    functions = trace(serving, params)
    now = datetime.now(UTC)
    manifest: dict[str, Any] = {
        "bundle_schema": SCHEMA_VERSION,
        "created": now.isoformat(timespec="seconds"),
        "readable_until": (now + _READABLE).date().isoformat(),
        "jax": jax.__version__,
        "bert4rec_jax": bert4rec_jax.__version__,
        "model": asdict(config.model),
        "dtype": dtype,
        "objective": config.masking.objective,
        "reads": "causal" if causal else "masked",
        "max_length": max_length,
        "repeats": config.data.repeats,
        "thumbs": list(trained.thumbs),
        "items": len(trained.catalog),
        "known_items": int(trained.known.sum()),
        "catalog_fingerprint": trained.catalog.fingerprint,
        **trained.origin,
        "functions": {
            name: signature(name, function, serving.more) for name, function in functions.items()
        },
    }
    with whole_folder(bundle) as partial:
        write_parameters(params, partial / PARAMETERS)
        _write_catalog(trained, partial / CATALOG)
        if trained.encoding is not None:
            text = json.dumps(trained.encoding.to_json()) + "\n"
            (partial / ENCODING).write_text(text, encoding="utf-8")
        if users is not None:
            text = json.dumps(users.to_json()) + "\n"
            (partial / USER_ENCODING).write_text(text, encoding="utf-8")
        for name, function in functions.items():
            (partial / function_file(name)).write_bytes(function.serialize())
        manifest["checksums"] = {file.name: sha256(file) for file in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return manifest


def write_parameters(params: Mapping[str, npt.NDArray[Any]], file: Path) -> None:
    """Write parameters by path as safetensors.

    Arrays are made contiguous first, as safetensors would write the bytes of others in the wrong
    order. The file is written here, as safetensors would let only its owner read it.
    """
    # ascontiguousarray turns a scalar into an array of one element, hence the reshape.
    whole = {path: np.ascontiguousarray(x).reshape(x.shape) for path, x in params.items()}
    file.write_bytes(save(whole))


def _write_catalog(trained: TrainedModel, file: Path) -> None:
    trained.catalog.write(file)
    known = trained.known[FIRST_ITEM : trained.catalog.num_tokens]
    pq.write_table(pq.read_table(file).append_column("known", pa.array(known)), file)


def _metrics(run: Path, model: str, parameters: str, corrections: str) -> dict[str, Any] | None:
    """The model's metrics from `metrics.json`; None unless the file is about these parameters and
    corrections."""
    results = about(read_metrics(run / METRICS), parameters)
    if results.get("corrections_sha256", corrections) != corrections:
        return None
    found = {
        name: models[model]
        for name, models in results.items()
        if isinstance(models, dict) and isinstance(models.get(model), dict)
    }
    return found or None
