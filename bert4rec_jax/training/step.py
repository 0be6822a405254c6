"""The train step: one jitted, sharded function from (state, batch) to (state, metrics)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bert4rec_jax.config import MaskingConfig
from bert4rec_jax.data.batch import Batch
from bert4rec_jax.models.history import History
from bert4rec_jax.sharding import (
    WHOLE,
    Along,
    RowShare,
    global_rows,
    place,
    place_state,
)
from bert4rec_jax.training.in_batch import InBatch, in_batch_cross_entropy
from bert4rec_jax.training.losses import FullSoftmax, cross_entropy
from bert4rec_jax.training.masking import MaskedBatch, mask_items
from bert4rec_jax.training.slots import Slots

Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that changes during training. The step is also the position in the data.

    Attributes:
      step: int32 scalar, number of updates done.
      params: the model's parameters.
      opt_state: the optimizer's state.
    """

    step: jax.Array
    params: Any
    opt_state: Any


class Constants(NamedTuple):
    """Inputs that the step reads but never changes, sharded over the mesh.

    Attributes:
      in_softmax: `[V]` bool, the items that the model is trained on.
      catalog: the model's variable collection `catalog`, empty if the model needs none.
      target_share: `[V]` float32, how often each item is a target, as a share of all targets; None
        without in-batch negatives.
      users: `[U + 1, G]` float32 user features, indexed by `Batch.users`; None for models that do
        not read them.
    """

    in_softmax: jax.Array
    catalog: Any
    target_share: jax.Array | None = None
    users: jax.Array | None = None


def new_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    max_length: int,
    user_dim: int = 0,
) -> TrainState:
    """A freshly initialised train state; call it under `jit` with the state's shardings.

    `user_dim` is the number G of user features; above 0, the model gets parameters for them.
    """
    row = jnp.zeros((1, max_length), jnp.int32)
    users = jnp.zeros((1, 1, user_dim)) if user_dim else None
    history = History(row, row, row, row, row != 0, row.astype(jnp.float32), row, users)
    params = model.init(_keys(seed).init, history, row[:, :1], deterministic=True)["params"]
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def create_state(
    mesh: Mesh,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    max_length: int,
    user_dim: int = 0,
) -> TrainState:
    """A freshly initialised train state, created directly in its shards on the mesh."""
    make = partial(new_state, model, optimizer, seed=seed, max_length=max_length, user_dim=user_dim)
    shardings = place_state(mesh, jax.eval_shape(make))
    state: TrainState = jax.jit(make, out_shardings=shardings)()
    return state


def slots_loss(
    model: nn.Module,
    params: Any,
    constants: Constants,
    batch: Batch,
    masked: MaskedBatch,
    softmax: FullSoftmax | InBatch,
    *,
    dropout_key: jax.Array | None,
    negatives_key: jax.Array | None = None,
) -> jax.Array:
    """The weighted mean loss over the slots of a batch; no dropout if `dropout_key` is None.

    `InBatch` draws its negatives with `negatives_key`.
    """
    output: Any = model.apply(
        {"params": params, "catalog": constants.catalog},
        History(
            masked.tokens,
            masked.thumbs,
            batch.positions,
            batch.segments,
            masked.causal,
            batch.days,
            batch.since,
            None if constants.users is None else constants.users[batch.users],
        ),
        masked.slots,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    hidden, vectors, bias = output
    slots = Slots(
        hidden,
        masked.labels,
        masked.weights,
        jnp.take_along_axis(batch.segments, masked.slots, axis=1),
        jnp.asarray(batch.tokens),
        jnp.asarray(batch.segments),
    )
    if isinstance(softmax, FullSoftmax):
        return cross_entropy(slots, vectors, bias, constants.in_softmax, softmax)
    assert negatives_key is not None and constants.target_share is not None
    return in_batch_cross_entropy(
        negatives_key, slots, vectors, bias, constants.target_share, constants.in_softmax, softmax
    )


def make_train_step(
    mesh: Mesh,
    state: TrainState,
    constants: Constants,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    masking: MaskingConfig,
    softmax: FullSoftmax | InBatch,
    slots: int,
    seed: int,
    steps_per_epoch: int,
) -> TrainStep:
    """Build `(state, batch, constants) -> (state, metrics)`; the input state is donated.

    The batches of several steps can be passed stacked; their metrics are stacked likewise.

    Masks depend only on (seed, epoch, example), dropout and negatives on (seed, step), so a run
    continues from a restored state as if it had never stopped. Metrics: `loss`, `grad_norm`, and
    per thumb the number of items (`items_by_thumb`) and of targets (`masked_by_thumb`), whatever
    they weigh in the loss.
    """
    keys = _keys(seed)

    def step(state: TrainState, batch: Batch, constants: Constants) -> tuple[TrainState, Metrics]:
        masked = mask_items(
            jax.random.fold_in(keys.masks, state.step // steps_per_epoch),
            batch,
            rate=masking.rate,
            last_only=masking.last_only,
            thumb_weights=masking.thumb_weights,
            loss_weights=masking.loss_weights,
            next_item=masking.next_item,
            slots=slots,
        )
        loss, gradients = jax.value_and_grad(
            lambda params: slots_loss(
                model,
                params,
                constants,
                batch,
                masked,
                softmax,
                dropout_key=jax.random.fold_in(keys.dropout, state.step),
                negatives_key=jax.random.fold_in(keys.negatives, state.step),
            )
        )(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        next_item = jnp.take_along_axis(masked.causal, masked.slots, axis=1)
        slot_thumbs = jnp.take_along_axis(batch.thumbs, masked.slots + next_item, axis=1)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(gradients),
            "items_by_thumb": _count_by_thumb(batch.thumbs, batch.segments != 0),
            "masked_by_thumb": _count_by_thumb(slot_thumbs, masked.in_use),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    shardings = place_state(mesh, state)
    by_item: Any = place(mesh, Along.ITEMS)
    everywhere: Any = place(mesh, Along.NEITHER)
    constants_places = Constants(
        by_item,
        place_state(mesh, constants.catalog),
        None if constants.target_share is None else by_item,
        None if constants.users is None else everywhere,
    )

    def steps(state: TrainState, batches: Batch, constants: Constants) -> Any:
        return jax.lax.scan(lambda state, batch: step(state, batch, constants), state, batches)

    def compiled(function: Any, along: Along) -> Any:
        return jax.jit(
            function,
            in_shardings=(shardings, place(mesh, along), constants_places),
            out_shardings=(shardings, everywhere),
            donate_argnums=0,
        )

    return TrainStep(mesh, compiled(step, Along.ROWS), compiled(steps, Along.STEPS_BY_ROWS))


@dataclass(frozen=True)
class TrainStep:
    """The compiled step with the mesh it runs on."""

    mesh: Mesh
    jitted: Any
    jitted_several: Any

    def __call__(
        self, state: TrainState, batch: Batch, constants: Constants
    ) -> tuple[TrainState, Metrics]:
        """Run one update, or several if `batch` holds stacked batches."""
        jitted = self.jitted if batch.tokens.ndim == 2 else self.jitted_several
        with jax.set_mesh(self.mesh):  # not globally: Orbax cannot save under a global mesh
            result: tuple[TrainState, Metrics] = jitted(state, batch, constants)
        return result

    def place(self, batch: Batch, share: RowShare = WHOLE) -> Batch:
        """Assemble global device arrays from the share of the rows that each process provides."""
        along = Along.ROWS if batch.tokens.ndim == 2 else Along.STEPS_BY_ROWS
        placed: Batch = global_rows(self.mesh, batch, along, share)
        return placed

    def compile(self, state: Any, batch: Any, constants: Any) -> jax.stages.Compiled:
        """Compile a single step for the mesh; the arguments may be `jax.ShapeDtypeStruct`s.

        The mesh may consist of devices that are described but not present.
        """
        with jax.set_mesh(self.mesh):
            compiled: jax.stages.Compiled = self.jitted.lower(state, batch, constants).compile()
        return compiled


class _Keys(NamedTuple):
    """The root keys of all randomness in a run, one per purpose."""

    init: jax.Array
    masks: jax.Array
    dropout: jax.Array
    negatives: jax.Array


def _keys(seed: int) -> _Keys:
    root = jax.random.key(seed)
    init, masks, dropout = jax.random.split(root, 3)
    return _Keys(init, masks, dropout, negatives=jax.random.fold_in(root, 3))


def _count_by_thumb(thumbs: Any, counted: Any) -> jax.Array:
    return jnp.stack([((thumbs == t) & counted).sum() for t in range(4)])
