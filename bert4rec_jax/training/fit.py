"""Fit: from a config and training histories to a trained model, continuing where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh
from rich.console import Console

from bert4rec_jax.config import Config, to_json
from bert4rec_jax.data.batch import Batch
from bert4rec_jax.data.pipeline import StepToBatch, batches
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.sharding import Along, platform, put, to_host
from bert4rec_jax.training.checkpoints import Checkpoint, Checkpoints, RunRecord
from bert4rec_jax.training.log import TrainingLog
from bert4rec_jax.training.loop import Stopping, Validations, train
from bert4rec_jax.training.parts import Sizes, make_parts
from bert4rec_jax.training.step import Constants, Metrics, TrainState

_AT_ONCE = 8  # steps in a stride, where starting a small one takes longer than the step

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a model is trained on, and what is known beside the histories.

    Attributes:
      store: histories.
      thumbs: rating thresholds.
      content: `[V, F]` what is known of each item beside its id, or None.
      first_day: `[V]` when each item was first watched, for a model that reads times, or None.
      users: `[U + 1, G]` what is known of user u in row u + 1, and in row 0 of no user, or None.
    """

    store: SequenceStore
    thumbs: tuple[float, float]
    content: Features | None = None
    first_day: Features | None = None
    users: Features | None = None

    @property
    def sizes(self) -> Sizes:
        """What parameters depend on."""
        return Sizes(
            self.store.catalog.num_rows,
            content_dim=0 if self.content is None else self.content.shape[1],
            user_dim=0 if self.users is None else self.users.shape[1],
        )


@dataclass(frozen=True)
class TrainResult:
    """A trained model.

    Attributes:
      params: parameters after `step` updates, the best by validation.
      step: see above.
      last_step: updates done in all.
      last_digest: digest of the parameters after the last update.
      resumed_from: the step this run continued from; 0 for a fresh start.
      validations: one dict per validation: `step` and the metrics.
    """

    params: Any
    step: int
    last_step: int
    last_digest: str
    resumed_from: int
    validations: Validations


def catalog_constants(
    mesh: Mesh,
    content: Features | None,
    trained: npt.NDArray[np.bool_],
    offset: float = 0.0,
    *,
    first_day: Features | None = None,
) -> dict[str, Any]:
    """The model's collection `catalog`, laid out over the mesh; empty if it needs none.

    Args:
      mesh: the devices.
      content: `[V, F]` features of each item, or None.
      trained: `[V]`, the items with a training event.
      offset: added to the bias of the others.
      first_day: `[V]`, when each item was first watched, for a model that reads times.
    """
    constants: dict[str, Any] = {}
    if content is not None:
        constants["item_table"] = {
            "features": put(mesh, Along.ITEMS, content),
            "trained": put(mesh, Along.ITEMS, trained),
            "offset": put(mesh, Along.NEITHER, np.float32(offset)),
        }
    if first_day is not None:
        known = np.where(trained, first_day, 0).astype(np.float32)
        constants["request_time"] = {"first_day": put(mesh, Along.ITEMS, known)}
    return constants


def make_plan(config: Config, store: SequenceStore, stop: npt.NDArray[np.int64]) -> Plan:
    """The order of training histories: each user's rows up to `stop`."""
    return Plan(
        starts=np.asarray(store.offsets[:-1]),
        stops=stop,
        max_length=config.data.max_length,
        batch_size=config.training.batch_size,
        window=config.data.window,
        pack=config.data.pack,
        max_segments=config.data.max_segments,
        seed=config.training.seed,
    )


def trained_items(plan: Plan, store: SequenceStore) -> npt.NDArray[np.bool_]:
    """`[V]`: the items that some epoch reads or asks for.

    An item that lies before the last L of all histories it occurs in, where no more is read, is
    none of them: as a negative in every step its score would only sink.
    """
    starts, stops = plan.reached()
    edges = np.zeros(store.num_interactions + 1, np.int32)
    np.add.at(edges, starts, 1)
    np.subtract.at(edges, stops, 1)
    trained = np.zeros(store.catalog.num_rows, bool)
    trained[store.tokens[np.cumsum(edges[:-1]) > 0]] = True
    return trained


def target_share(
    config: Config, plan: Plan, store: SequenceStore, thumbs: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """`[V]`: how often each item is a target of training, as a share of all targets.

    Expected over the masks of the first epoch, for items with a weight in the loss; of one that is
    not asked for, as if it were once.
    """
    masking, spans = config.masking, plan.epoch(0).spans
    lengths = np.repeat(spans.lengths, spans.lengths)
    ends = np.cumsum(spans.lengths)
    within = np.arange(len(lengths)) - np.repeat(ends - spans.lengths, spans.lengths)
    rows = np.repeat(spans.starts, spans.lengths) + within
    thumb = to_thumbs(store.ratings[rows], thumbs)

    weight = np.asarray(masking.thumb_weights)[thumb]
    weights_of_history = np.repeat(np.add.reduceat(weight, ends - spans.lengths), spans.lengths)
    count = np.clip(np.round(masking.rate * lengths), 1, lengths - 1)
    anywhere = np.minimum(count * weight / weights_of_history, 1)
    masked = masking.last_only * (within == lengths - 1) + (1 - masking.last_only) * anywhere
    asked = masking.next_item * (within > 0) + (1 - masking.next_item) * masked
    asked *= np.asarray(masking.loss_weights)[thumb] > 0
    counts = np.bincount(store.tokens[rows], asked, minlength=store.catalog.num_rows)
    least = asked[asked > 0].min()
    shares: npt.NDArray[np.float32] = (np.maximum(counts, least) / asked.sum()).astype(np.float32)
    return shares


def fit(
    config: Config,
    data: TrainingData,
    *,
    mesh: Mesh,
    stop: npt.NDArray[np.int64],
    folder: Path,
    console: Console,
    title: str,
    validate: Callable[[Any], dict[str, float]] | None,
    steps: int | None = None,
    initial: Callable[[TrainState], TrainState] | None = None,
) -> TrainResult:
    """Train on each user's rows up to `stop`; continue if `folder` holds an unfinished run.

    Args:
      config: all settings.
      data: what it is trained on.
      mesh: the devices.
      stop: `[U]` where each user's training rows end.
      folder: gets `checkpoints/`, `log.jsonl` and TensorBoard events.
      console: shows progress.
      title: what is being trained.
      validate: from parameters to metrics; None trains for `steps` without validation.
      steps: updates to do; None for `config.training.epochs` epochs.
      initial: from a new state to the one to begin with, where nothing is to be continued.

    Raises:
      UserError: see `loop.train` and `Checkpoints.restore_latest`.
      Interrupted: asked to stop; the state is saved.
    """
    training, store, users = config.training, data.store, data.users
    plan = make_plan(config, store, stop)
    scheduled = training.epochs * plan.steps_per_epoch
    total = scheduled if steps is None else steps
    fused = config.model.attention == "fused" and platform(mesh) == "gpu"
    parts = make_parts(config, data.sizes, total_steps=scheduled, fused=fused)
    abstract = jax.eval_shape(parts.new_state)

    record = make_record(config, data)
    checkpoints = open_checkpoints(
        config,
        folder,
        keep=training.keep,
        warn=lambda text: console.print(f"[yellow]{text}; taking the one before it"),
    )
    try:
        found = checkpoints.restore_latest(abstract, mesh, record)
        if found is None:
            state = parts.create_state(mesh)
            found = Checkpoint(0, initial(state) if initial else state, record)
        trained = trained_items(plan, store)
        share = target_share(config, plan, store, data.thumbs) if parts.in_batch else None
        constants = Constants(
            put(mesh, Along.ITEMS, trained),
            catalog_constants(mesh, data.content, trained, first_day=data.first_day),
            None if share is None else put(mesh, Along.ITEMS, share),
            None if users is None else put(mesh, Along.NEITHER, users),
        )
        step_function = parts.train_step(
            mesh, abstract, constants, steps_per_epoch=plan.steps_per_epoch
        )
        host, hosts = jax.process_index(), jax.process_count()
        to_batch = StepToBatch(
            plan, store, data.thumbs, host=host, hosts=hosts, with_users=users is not None
        )

        def on_devices(strides: npt.NDArray[np.int64]) -> Iterator[Batch]:
            return map(step_function.place, batches(to_batch, strides))

        def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            return step_function(state, batch, constants)

        with TrainingLog(
            folder,
            console,
            title=title,
            start=found.step,
            total=total,
            examples_per_step=plan.epoch(0).num_examples / plan.steps_per_epoch,
            every=training.log_every,
            learning_rate=parts.schedule,
            active=host == 0,
            wandb=config.log.wandb,
            config=to_json(config),
        ) as log:
            state, record = train(
                state=found.state,
                step=found.step,
                train_step=train_step,
                batches=on_devices,
                validate=lambda params: {} if validate is None else validate(params),
                checkpoints=checkpoints,
                record=found.record,
                stopping=Stopping(
                    total_steps=total,
                    evaluate_every=training.evaluate_every * plan.steps_per_epoch
                    if validate
                    else 0,
                    save_every=training.save_every,
                    metric=training.metric,
                    patience=training.patience,
                    at_once=training.steps_at_once or (1 if platform(mesh) == "cpu" else _AT_ONCE),
                ),
                reporter=log,
            )
        best = _best(checkpoints, abstract, mesh, record, state)
    finally:
        checkpoints.close()
    return TrainResult(
        params=best.state.params,
        step=best.step,
        last_step=int(state.step),
        last_digest=digest(state.params),
        resumed_from=found.step,
        validations=record.validations,
    )


def make_record(config: Config, data: TrainingData) -> RunRecord:
    """What a checkpoint of this run says of itself."""
    return RunRecord(
        to_json(config),
        data.store.catalog.fingerprint,
        data.store.fingerprint,
        content=_fingerprint(data.content),
        users=_fingerprint(data.users),
    )


def _fingerprint(features: Features | None) -> str:
    if features is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(features).tobytes()).hexdigest()


def load_best(
    config: Config,
    data: TrainingData,
    *,
    mesh: Mesh,
    folder: Path,
    warn: Callable[[str], None],
) -> Checkpoint:
    """The best checkpoint of a run, finished or not; where nothing was validated, the newest.

    Raises:
      UserError: the folder holds no checkpoint that can be read and fits this config and data.
    """
    parts = make_parts(config, data.sizes, total_steps=1)  # the schedule holds no state
    abstract = jax.eval_shape(parts.new_state)
    record = make_record(config, data)
    checkpoints = open_checkpoints(config, folder, keep=None, warn=warn)
    try:
        newest = checkpoints.restore_latest(abstract, mesh, record)
        if newest is None:
            raise UserError(f"{folder} holds no checkpoint; train there first")
        return _best(checkpoints, abstract, mesh, newest.record, newest.state)
    finally:
        checkpoints.close()


def open_checkpoints(
    config: Config, folder: Path, *, keep: int | None, warn: Callable[[str], None]
) -> Checkpoints:
    """The checkpoints of a run in its folder, to train (`keep`) or to read; see `Checkpoints`."""
    return Checkpoints(
        folder / "checkpoints",
        metric=config.training.metric,
        keep=keep,
        warn=warn,
    )


def digest(params: Any) -> str:
    """SHA-256 over names, shapes and bytes of all parameters: equal digests, equal parameters."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        array = np.ascontiguousarray(to_host(leaf))
        sha.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _best(
    checkpoints: Checkpoints,
    abstract: TrainState,
    mesh: Mesh,
    record: RunRecord,
    last: TrainState,
) -> Checkpoint:
    """The best validated checkpoint that can be read; without validations the last state."""
    for step in checkpoints.best_steps(record.validations):
        try:
            return checkpoints.restore(step, abstract, mesh, record)
        except UserError:
            continue
    return Checkpoint(int(last.step), last, record)
