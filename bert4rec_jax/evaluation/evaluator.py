"""Evaluator: ranks all cases of a set with a model or a baseline, on device, in batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh

from bert4rec_jax.config import EvaluationConfig
from bert4rec_jax.data.batch import inference_rows
from bert4rec_jax.data.catalog import FIRST_ITEM, MASK, PAD
from bert4rec_jax.data.ranges import joined, within
from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import default_thresholds, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.lift import BOOSTS, COLLECTION, boosts_of
from bert4rec_jax.evaluation.ranks import Ranked, rank_by_scores, rank_by_vectors
from bert4rec_jax.models.history import History
from bert4rec_jax.sharding import Along, make_mesh, place, put, to_host

TOP = 10
_AHEAD = 8  # batches that the devices may be behind
# Full float32 matrix products; by default, GPUs and TPUs round their inputs to fewer bits.
EXACT = partial(jax.default_matmul_precision, "highest")


class Ranking(NamedTuple):
    """The results for M cases: `ranks [M]` of the targets and `top [M, 10]` recommended tokens."""

    ranks: npt.NDArray[np.int64]
    top: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class ScoringModel:
    """A model with all that its scores depend on.

    Attributes:
      module: a Flax module with the methods `encode` and `item_vectors`.
      variables: its collections, sharded over the mesh: `params`, `catalog` if it has one, and
        optionally that of `evaluation.lift`.
      known: `[V]` bool, the items that it can score. Others score -inf, and are left out of the
        histories that it reads: nothing was learned of them.
      max_length: its positions L; it reads the last L - 1 items and a MASK.
      causal: whether it predicts the next item at the newest one with causal attention, instead of
        at the MASK.
    """

    module: nn.Module
    variables: Any
    _: KW_ONLY
    known: npt.NDArray[np.bool_]
    max_length: int
    causal: bool


class Scorer(Protocol):
    """Anything that scores the whole catalog for a batch of cases, such as a baseline."""

    def scores(self, cases: Cases, store: SequenceStore) -> npt.NDArray[np.float32]:
        """`[M, V]` finite scores, V = `catalog.num_rows`: item i is column `FIRST_ITEM + i`."""
        ...


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Full ranking over the catalog, the same for every model.

    Items of the history are excluded, unless items can be chosen again.

    Attributes:
      store: holds the histories and targets.
      mesh: the devices; batches are sharded by row, the catalog by item.
      batch_size: cases per batch; does not change results.
      item_chunk: items scored at once, per device; does not change results.
      thumbs: rating thresholds, for models that read thumbs; None derives them from the store's
        rating scale.
      users: `[U + 1, G]` user features, those of user u in row u + 1, for models that read them; or
        None.
      repeats: whether items can be chosen again.
    """

    store: SequenceStore
    _: KW_ONLY
    mesh: Mesh = field(default_factory=make_mesh)
    batch_size: int = EvaluationConfig.batch_size
    item_chunk: int = EvaluationConfig.item_chunk
    thumbs: tuple[float, float] | None = None
    users: npt.NDArray[np.float32] | None = None
    repeats: bool = False
    _compiled: dict[tuple[str, nn.Module], Any] = field(
        default_factory=dict, init=False, repr=False
    )

    def rank_model(
        self,
        model: ScoringModel,
        cases: Cases,
        *,
        among: npt.NDArray[np.int32] | None = None,
        hidden: npt.NDArray[np.float32] | None = None,
        poll: Callable[[], None] | None = None,
    ) -> Ranking:
        """Rank by a model.

        Args:
          model: what to rank by.
          cases: the cases to rank.
          among: `[M, C]` tokens to rank for each case, padded with PAD; None for all.
          hidden: `[M, D]` user vectors that `encode` returned for the same cases; None encodes
            them here.
          poll: called before each batch; what it raises ends the ranking.

        Raises:
          UserError: the score of a known item is not finite.
        """
        vectors, bias = self._item_vectors(model)
        known = put(self.mesh, Along.ITEMS, model.known)

        def answer(block: _Block) -> Ranked:
            window = self.window(block.cases, model.known, model.max_length)
            if hidden is None:
                user = self._encoded(model, window)
            else:
                user = put(self.mesh, Along.ROWS, hidden[block.filled])
            boosts = None
            if COLLECTION in model.variables:
                recent = put(self.mesh, Along.ROWS, window.tokens(self.store))
                boosts = self._raised(model.variables[COLLECTION], recent)
            return self._rank_vectors(
                user, vectors, bias, block.targets, block.excluded, self._is_item, known,
                block.among, boosts=boosts,
            )  # fmt: skip

        wrong = "a score is NaN or infinite; the model's parameters are broken"
        return self._ask(cases, among, answer, wrong, poll)

    def encode(self, model: ScoringModel, cases: Cases) -> npt.NDArray[np.float32]:
        """`[M, D]` user vectors, to rank the same cases several times."""
        with jax.set_mesh(self.mesh), EXACT():
            parts = []
            for block in self._blocks(cases, None):
                window = self.window(block.cases, model.known, model.max_length)
                parts.append((block.which, self._encoded(model, window)))
        hidden = np.zeros((len(cases), parts[0][1].shape[1] if parts else 0), np.float32)
        for which, part in parts:
            hidden[which] = to_host(part)[: len(which)]
        return hidden

    def rank_scorer(
        self, scorer: Scorer, cases: Cases, among: npt.NDArray[np.int32] | None = None
    ) -> Ranking:
        """Rank by scores computed on the host, such as those of a baseline.

        `among` is as for `rank_model`.

        Raises:
          UserError: the scores are no dense `[M, V]`, or the score of an item is not finite.
        """
        name = getattr(scorer, "name", type(scorer).__name__)

        def answer(block: _Block) -> Ranked:
            found = scorer.scores(block.cases, self.store)
            checked = self._checked(found, len(block.cases), name)
            scores = put(self.mesh, Along.ROWS_BY_ITEMS, checked)
            return self._rank_scores(
                scores, block.targets, block.excluded, self._is_item, self._is_item, block.among
            )

        wrong = (
            f"{name} gave an item a score that is NaN or infinite; scores have to be finite (a "
            "very low one, such as -1e30, keeps an item out of the lists)"
        )
        return self._ask(cases, among, answer, wrong)

    def _checked(self, found: Any, cases: int, name: str) -> npt.NDArray[np.float32]:
        catalog = self.store.catalog
        try:
            scores = np.array(found, np.float32)  # a copy: the scorer may write there again
        except (TypeError, ValueError):
            what = f"{type(found).__name__}; expected a dense array, as toarray() of a sparse one"
            raise UserError(f"{name} gave scores as {what}") from None
        if scores.shape != (cases, catalog.num_rows):
            raise UserError(
                f"{name} gave scores of shape {scores.shape}; expected {(cases, catalog.num_rows)},"
                f" (len(cases), catalog.num_rows): a row per case and a column per token, where "
                f"item i of the {len(catalog):,} of the catalog is column FIRST_ITEM + i = "
                f"{FIRST_ITEM} + i (columns of other tokens are not read)"
            )
        return scores

    def _ask(
        self,
        cases: Cases,
        among: npt.NDArray[np.int32] | None,
        answer: Callable[[_Block], Ranked],
        wrong: str,
        poll: Callable[[], None] | None = None,
    ) -> Ranking:
        ranks = np.zeros(len(cases), np.int64)
        top = np.zeros((len(cases), TOP), np.int32)
        answers: deque[tuple[npt.NDArray[np.intp], Ranked]] = deque()

        def fetch() -> None:
            which, ranked = answers.popleft()
            real = slice(len(which))
            if to_host(ranked.broken)[real].any():
                raise UserError(wrong)
            ranks[which] = to_host(ranked.ranks)[real]
            top[which] = to_host(ranked.top)[real]

        with jax.set_mesh(self.mesh), EXACT():
            for block in self._blocks(cases, among):
                if poll is not None:
                    poll()
                answers.append((block.which, answer(block)))
                if len(answers) > _AHEAD:
                    fetch()
        while answers:
            fetch()
        return Ranking(ranks, top)

    def _blocks(self, cases: Cases, among: npt.NDArray[np.int32] | None) -> Iterator[_Block]:
        """Batches of equal size, sorted by history length; repeated cases fill up the last one."""
        lengths = cases.rows - self.store.offsets[cases.users]
        order = np.argsort(lengths, kind="stable")
        for start in range(0, len(order), self.batch_size):
            which = order[start : start + self.batch_size]
            filled = np.concatenate([which, np.repeat(which[:1], self.batch_size - len(which))])
            block = cases[filled]
            sizes = lengths[filled]
            history = self.store.tokens[joined(block.rows - sizes, sizes)]
            seen = _padded(history, sizes, _bucket(int(sizes.max())))
            yield _Block(
                which=which,
                filled=filled,
                cases=block,
                targets=put(self.mesh, Along.ROWS, self.store.tokens[block.rows]),
                excluded=put(self.mesh, Along.ROWS, seen[:, :1] * 0 if self.repeats else seen),
                among=None if among is None else put(self.mesh, Along.ROWS, among[filled]),
            )

    def window(self, cases: Cases, known: npt.NDArray[np.bool_], max_length: int) -> Window:
        """What a model reads of each history: the last L - 1 items that are `known [V]`."""
        starts = self.store.offsets[cases.users]
        first = np.maximum(starts, cases.rows - (max_length - 1))
        case, rows, kept = self._between(first, cases.rows, known)
        if not kept.all():  # earlier items move up
            first[case[~kept]] = starts[case[~kept]]
            case, rows, kept = self._between(first, cases.rows, known)
        counts = np.bincount(case[kept], minlength=len(cases))
        lengths = np.minimum(counts, max_length - 1)
        last = within(counts) >= np.repeat(counts - lengths, counts)
        width = min(_bucket(int(lengths.max()) + 1), max_length)
        source = _padded(rows[kept][last], lengths, width)
        return Window(cases, source, lengths)

    def _between(
        self,
        starts: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        known: npt.NDArray[np.bool_],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """All rows `start:stop`: the number of the range, the row, and whether it is known."""
        sizes = stops - starts
        rows = joined(starts, sizes)
        return np.repeat(np.arange(len(sizes)), sizes), rows, known[self.store.tokens[rows]]

    def _read(self, model: ScoringModel, window: Window) -> tuple[History, jax.Array]:
        """The model's input for a batch of cases, and the slot whose vector is needed."""
        cases = window.cases
        thresholds = self.thumbs or default_thresholds(
            self.store.manifest["source"].get("max_rating"),
            read=getattr(model.module, "thumbs", True),
        )
        batch, slots = inference_rows(
            window.source,
            window.lengths,
            self.store.tokens,
            lambda rows: to_thumbs(self.store.ratings[rows], thresholds),
            max_length=model.max_length,
            timestamps=self.store.timestamps,
            moments=self.store.timestamps[cases.rows],
        )
        if model.causal:
            slots = np.maximum(slots - 1, 0)
        from_left = np.full(batch.tokens.shape, model.causal)
        users = None if self.users is None else self.users[cases.users + 1][:, None]
        history = History(
            batch.tokens,
            batch.thumbs,
            batch.positions,
            batch.segments,
            from_left,
            batch.days,
            batch.since,
            users,
        )
        return jax.tree.map(partial(put, self.mesh, Along.ROWS), (history, slots))

    @cached_property
    def _is_item(self) -> jax.Array:
        return put(self.mesh, Along.ITEMS, self.store.catalog.is_item())

    def _encoded(self, model: ScoringModel, window: Window) -> jax.Array:
        """`[B, D]` user vectors."""
        key = "encode", model.module
        if key not in self._compiled:

            def encode(variables: Any, history: History, slots: jax.Array) -> jax.Array:
                hidden: Any = model.module.apply(
                    variables, history, slots, deterministic=True, method="encode"
                )
                # A causal model has never learnt MASK, which is all that is left of an empty one.
                empty = history.causal[:, :1] & (history.tokens[:, :1] == MASK)
                return jnp.where(empty, 0, hidden[:, 0])

            self._compiled[key] = jax.jit(encode, out_shardings=place(self.mesh, Along.ROWS))
        found: jax.Array = self._compiled[key](model.variables, *self._read(model, window))
        return found

    def _item_vectors(self, model: ScoringModel) -> tuple[jax.Array, jax.Array]:
        """`[V, D]` item vectors and `[V]` biases."""
        key = "item_vectors", model.module
        if key not in self._compiled:
            self._compiled[key] = jax.jit(
                partial(model.module.apply, method="item_vectors"),
                out_shardings=place(self.mesh, Along.ITEMS),
            )
        with jax.set_mesh(self.mesh), EXACT():
            vectors, bias = self._compiled[key](model.variables)
        return vectors, bias

    @cached_property
    def _raised(self) -> Any:
        shardings = jax.tree.map(lambda along: place(self.mesh, along), BOOSTS)
        return jax.jit(boosts_of, out_shardings=shardings)

    @cached_property
    def _rank_vectors(self) -> Any:
        return jax.jit(partial(rank_by_vectors, top=TOP, chunk=self.item_chunk))

    @cached_property
    def _rank_scores(self) -> Any:
        return jax.jit(partial(rank_by_scores, top=TOP))


class _Block(NamedTuple):
    """One batch of cases: their indices, the same filled up with repeats, and arrays on device."""

    which: npt.NDArray[np.intp]
    filled: npt.NDArray[np.intp]
    cases: Cases
    targets: jax.Array
    excluded: jax.Array
    among: jax.Array | None


class Window(NamedTuple):
    """What a model reads for B cases: rows of the store, the first `lengths` of `source [B, W]`.

    W is more than the longest of them, so that there is a place for MASK.
    """

    cases: Cases
    source: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]

    def tokens(self, store: SequenceStore) -> npt.NDArray[np.int32]:
        """`[B, W]`, padded with PAD on the right."""
        used = np.arange(self.source.shape[1]) < self.lengths[:, None]
        return np.where(used, store.tokens[self.source], PAD).astype(np.int32)


def _padded(
    values: npt.NDArray[Any], lengths: npt.NDArray[np.int64], width: int
) -> npt.NDArray[Any]:
    """`[B, width]`: lists of the given lengths, one after another in `values`, padded with 0."""
    padded = np.zeros((len(lengths), width), values.dtype)
    padded[np.arange(width) < lengths[:, None]] = values
    return padded


def _bucket(length: int) -> int:
    """Round up to 16, 64, 256, ...: few distinct widths mean few compilations."""
    width = 16
    while width < length:
        width *= 4
    return width
