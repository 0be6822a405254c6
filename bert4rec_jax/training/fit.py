"""Fit: trains a model from a config and training histories, or continues an unfinished run."""

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
from bert4rec_jax.processes import is_first
from bert4rec_jax.sharding import Along, platform, put, row_share, to_host
from bert4rec_jax.training.checkpoints import Checkpoint, Checkpoints, RunRecord
from bert4rec_jax.training.log import TrainingLog
from bert4rec_jax.training.loop import Stopping, Validations, train
from bert4rec_jax.training.parts import Sizes, make_parts
from bert4rec_jax.training.step import Constants, Metrics, TrainState

_AT_ONCE = 8  # steps per dispatch on GPUs and TPUs: launching a small step outlasts computing it

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """The training histories, with optional item and user features.

    Attributes:
      store: the histories.
      thumbs: rating thresholds.
      content: `[V, F]` item features, or None.
      first_day: `[V]` day of each item's first interaction, for a model that reads times, or None.
      users: `[U + 1, G]` user features, those of user u in row u + 1; row 0 is for unknown users;
        or None.
    """

    store: SequenceStore
    thumbs: tuple[float, float]
    content: Features | None = None
    first_day: Features | None = None
    users: Features | None = None

    @property
    def sizes(self) -> Sizes:
        """The sizes that parameter shapes depend on."""
        return Sizes(
            self.store.catalog.num_rows,
            content_dim=0 if self.content is None else self.content.shape[1],
            user_dim=0 if self.users is None else self.users.shape[1],
        )


@dataclass(frozen=True)
class TrainResult:
    """A trained model.

    Attributes:
      params: the best parameters by validation, or the last ones without validation.
      step: number of updates after which `params` were taken.
      last_step: total number of updates.
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
    """The model's variable collection `catalog`, sharded over the mesh; empty if not needed.

    Args:
      mesh: the devices.
      content: `[V, F]` item features, or None.
      trained: `[V]` bool, the items the model is trained on.
      offset: added to the bias of all other items.
      first_day: `[V]` day of each item's first interaction, for a model that reads times, or None.
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
    """Plan the training batches from each user's rows `offsets[u]:stop[u]`."""
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
    """`[V]` bool: the items that occur in the training rows of some epoch.

    With `data.window` recent, only the last L interactions of a history are read. Items that occur
    only before them are false here: training never sees them, so as negatives in every step their
    scores would only be pushed down.
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
    """`[V]`: how often each item is a training target, as a share of all targets.

    This is the expectation over the masks of the first epoch (approximate where masking weights
    differ). Targets with a loss weight of 0 do not count. An item that is never a target gets the
    smallest nonzero expectation of any single interaction.
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
    scheduled: int | None = None,
    initial: Callable[[TrainState], TrainState] | None = None,
) -> TrainResult:
    """Train on each user's rows `offsets[u]:stop[u]`; continue an unfinished run in `folder`.

    Args:
      config: all settings.
      data: the training data.
      mesh: the devices.
      stop: `[U]` end of each user's training rows.
      folder: gets `checkpoints/`, `log.jsonl` and TensorBoard events.
      console: shows progress.
      title: name of the run on the progress bar.
      validate: maps parameters to validation metrics; None trains without validation.
      steps: number of updates; None for `config.training.epochs` epochs.
      scheduled: number of updates after which the learning rate has decayed; None for that many
        epochs.
      initial: maps a freshly initialised state to the one to start from, for example that of an
        earlier run; not called when a run is continued.

    Raises:
      UserError: see `loop.train` and `Checkpoints.restore_latest`.
      Interrupted: the process received a signal to stop; the state is saved.
    """
    training, store, users = config.training, data.store, data.users
    plan = make_plan(config, store, stop)
    every_epoch = training.epochs * plan.steps_per_epoch
    total = every_epoch if steps is None else steps
    fused = config.model.attention == "fused" and platform(mesh) == "gpu"
    parts = make_parts(config, data.sizes, total_steps=scheduled or every_epoch, fused=fused)
    abstract = jax.eval_shape(parts.new_state)
    stopping = Stopping(
        total_steps=total,
        evaluate_every=training.evaluate_every * plan.steps_per_epoch if validate else 0,
        save_every=training.save_every,
        metric=training.metric,
        patience=training.patience,
        at_once=training.steps_at_once or (1 if platform(mesh) == "cpu" else _AT_ONCE),
    )

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
        elif not stopping.ends(found.step, found.record.validations):
            console.print(f"  continuing from step {found.step:,} of {total:,}", highlight=False)
        trained = trained_items(plan, store)
        targets = target_share(config, plan, store, data.thumbs) if parts.in_batch else None
        constants = Constants(
            put(mesh, Along.ITEMS, trained),
            catalog_constants(mesh, data.content, trained, first_day=data.first_day),
            None if targets is None else put(mesh, Along.ITEMS, targets),
            None if users is None else put(mesh, Along.NEITHER, users),
        )
        step_function = parts.train_step(
            mesh, abstract, constants, steps_per_epoch=plan.steps_per_epoch
        )
        share = row_share(mesh, training.batch_size)
        to_batch = StepToBatch(
            plan,
            store,
            data.thumbs,
            host=share.number,
            hosts=share.total,
            with_users=users is not None,
        )

        def on_devices(strides: npt.NDArray[np.int64]) -> Iterator[Batch]:
            return (step_function.place(batch, share) for batch in batches(to_batch, strides))

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
            active=is_first(),
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
                stopping=stopping,
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
    """The record that the checkpoints of this run store; no validations yet."""
    return RunRecord(
        to_json(config),
        data.store.catalog.fingerprint,
        data.store.fingerprint,
        content=fingerprint(data.content),
        users=fingerprint(data.users),
    )


def fingerprint(features: Features | None) -> str:
    """SHA-256 of features; empty without any."""
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
    """Load the best checkpoint of a run, finished or not; the newest if none was validated.

    Raises:
      UserError: the folder has no checkpoint that can be read and fits this config and data.
    """
    parts = make_parts(config, data.sizes, total_steps=1)  # the schedule has no state
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
    """Open the checkpoints in a run's folder; None as `keep` is read-only; see `Checkpoints`."""
    return Checkpoints(
        folder / "checkpoints",
        metric=config.training.metric,
        keep=keep,
        warn=warn,
    )


def digest(params: Any) -> str:
    """SHA-256 over all parameters (name, shape, dtype, bytes): equal digests, equal parameters."""
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
    """The best validated checkpoint that can be read; the state `last` if there is none."""
    for step in checkpoints.best_steps(record.validations):
        try:
            return checkpoints.restore(step, abstract, mesh, record)
        except UserError:
            continue
    return Checkpoint(int(last.step), last, record)
