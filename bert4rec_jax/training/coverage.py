"""Coverage: which items the training rows of a plan train, and how often each is a target."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bert4rec_jax.config import Config
from bert4rec_jax.data.plan import Plan
from bert4rec_jax.data.ranges import covered, joined, within
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.training.masking import number_masked


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
    trained = np.zeros(store.catalog.num_rows, bool)
    trained[store.tokens[covered(*plan.reached(), store.num_interactions)]] = True
    return trained


def target_share(
    config: Config, plan: Plan, store: SequenceStore, thumbs: tuple[float, float]
) -> npt.NDArray[np.float32]:
    """`[V]`: how often each item is a training target, as a share of all targets.

    This is the expectation over the masks of the first epoch (approximate where masking weights
    differ). Targets with a loss weight of 0 do not count. An item that is never a target gets the
    smallest nonzero expectation of any single interaction; see `require_targets`.
    """
    rows, asked = _expected(config, plan, store, thumbs)
    counts = np.bincount(store.tokens[rows], asked, minlength=store.catalog.num_rows)
    least = asked[asked > 0].min()
    shares: npt.NDArray[np.float32] = (np.maximum(counts, least) / asked.sum()).astype(np.float32)
    return shares


def require_targets(
    config: Config, plan: Plan, store: SequenceStore, thumbs: tuple[float, float]
) -> None:
    """Check that the loss weighs some target of the first epoch.

    Raises:
      UserError: it weighs none: all thumbs that the log has are of weight 0.
    """
    weights = config.masking.loss_weights
    if all(weights) or _expected(config, plan, store, thumbs)[1].any():
        return
    raise UserError(
        f"every target of the training histories has a loss weight of 0 (masking.loss_* are "
        f"{weights} for the thumbs none, down, up and two up), so there is nothing to learn from; "
        "raise the weight of a thumb that the log has"
    )


def _expected(
    config: Config, plan: Plan, store: SequenceStore, thumbs: tuple[float, float]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """The store's rows in the first epoch, and how often each is expected to be a target."""
    masking, spans = config.masking, plan.epoch(0).spans
    lengths = np.repeat(spans.lengths, spans.lengths)
    ends = np.cumsum(spans.lengths)
    place = within(spans.lengths)
    rows = joined(spans.starts, spans.lengths)
    thumb = to_thumbs(store.ratings[rows], thumbs)

    weight = np.asarray(masking.thumb_weights)[thumb]
    weights_of_history = np.repeat(np.add.reduceat(weight, ends - spans.lengths), spans.lengths)
    count = number_masked(lengths, masking.rate, numpy=np)
    anywhere = np.minimum(count * weight / weights_of_history, 1)
    masked = masking.last_only * (place == lengths - 1) + (1 - masking.last_only) * anywhere
    asked = masking.next_item * (place > 0) + (1 - masking.next_item) * masked
    asked *= np.asarray(masking.loss_weights)[thumb] > 0
    return rows, asked
