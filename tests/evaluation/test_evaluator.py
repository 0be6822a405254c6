"""The evaluator: exact for any batch size and mesh, with whole histories seen."""

import functools
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from reference import rank_and_list

from bert4rec_jax.config import ModelConfig
from bert4rec_jax.data.batch import inference_rows
from bert4rec_jax.data.catalog import MASK, PAD
from bert4rec_jax.data.split import Cases, leave_one_out, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import Evaluator, ScoringModel
from bert4rec_jax.models.history import History
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.parts import build_model

THUMBS = (6.0, 9.0)
L = 6  # shorter than most histories: what is seen must not be the window


def evaluator_on(store, *, model=1, batch_size=16, item_chunk=64):
    return Evaluator(
        store, mesh=make_mesh(model=model), batch_size=batch_size, item_chunk=item_chunk,
        thumbs=THUMBS,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(store):
    config = ModelConfig(dim=8, heads=2, layers=1, ffn_dim=16, thumbs=True)
    module = build_model(config, num_rows=store.catalog.num_rows, max_length=L)
    row = np.zeros((1, L), np.int32)
    init = jax.jit(functools.partial(module.init, deterministic=True))
    variables = init(jax.random.key(0), History(row, row, row, row, row != 0), row[:, :1])
    return module, jax.tree.map(lambda x: x * 5 if x.ndim > 1 else x, variables)


class Fixed:
    """Scores of a table, whoever asks."""

    def __init__(self, scores):
        self.by_row = scores

    def scores(self, cases, store):
        return np.stack([self.by_row[int(row)] for row in cases.rows])


def test_a_scorer_is_ranked_by_the_rule(store):
    cases = leave_one_out(store).test["test"]
    generator = np.random.default_rng(0)
    table = {
        int(row): generator.integers(0, 6, store.catalog.num_rows).astype(np.float32)
        for row in cases.rows
    }
    ranking = evaluator_on(store).rank_scorer(Fixed(table), cases)
    ranks, top = rank_and_list(Fixed(table).scores(cases, store), cases, store)
    np.testing.assert_array_equal(ranking.ranks, ranks)
    np.testing.assert_array_equal(ranking.top, top)


class Reused(Fixed):
    """Writes the scores of all batches into the same memory, where JAX may read them in place."""

    def __init__(self, scores, shape):
        super().__init__(scores)
        memory = np.zeros(shape[0] * shape[1] + 16, np.float32)
        first = -memory.ctypes.data % 64 // 4
        self.memory = memory[first : first + shape[0] * shape[1]].reshape(shape)

    def scores(self, cases, store):
        self.memory[:] = super().scores(cases, store)
        return self.memory


def test_a_scorer_may_write_into_the_memory_of_its_last_scores(store):
    cases = leave_one_out(store).test["test"]
    generator = np.random.default_rng(0)
    shape = len(cases), store.catalog.num_rows
    table = dict(zip(cases.rows.tolist(), generator.random(shape).astype(np.float32)))
    cases = cases[np.arange(2048) % len(cases)]
    evaluator = Evaluator(store, mesh=make_mesh(devices=jax.devices()[:1]), batch_size=256)
    expected = evaluator.rank_scorer(Fixed(table), cases).ranks
    found = evaluator.rank_scorer(Reused(table, (256, shape[1])), cases).ranks
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("causal", [False, True])
def test_a_model_is_ranked_by_its_own_scores(store, model, causal):
    module, variables = model
    split = leave_one_out(store)
    cases = split.test["test"]
    known = train_counts(store, split.train_stop) > 0
    ranking = evaluator_on(store).rank_model(
        ScoringModel(module, variables, known=known, max_length=L, causal=causal), cases
    )

    starts = np.maximum(store.offsets[cases.users], cases.rows - (L - 1))
    source = np.minimum(starts[:, None] + np.arange(L), store.num_interactions - 1)
    assert known[store.tokens[source]].all()
    batch, slots = inference_rows(
        source, cases.rows - starts, store.tokens,
        lambda rows: to_thumbs(store.ratings[rows], THUMBS), max_length=L,
    )  # fmt: skip
    from_left = np.full(batch.tokens.shape, causal)
    apply = jax.jit(functools.partial(module.apply, deterministic=True))
    hidden, vectors, bias = apply(
        variables,
        History(batch.tokens, batch.thumbs, batch.positions, batch.segments, from_left),
        slots - causal,
    )
    scores = np.asarray(hidden[:, 0] @ vectors.T + bias)
    ranks, top = rank_and_list(scores, cases, store, known=known)
    np.testing.assert_array_equal(ranking.ranks, ranks)
    np.testing.assert_array_equal(ranking.top, top)


@pytest.mark.parametrize("causal", [False, True])
def test_items_that_the_model_does_not_know_are_not_read(store, model, causal):
    """Vectors that nothing was learned for are NaN here, and the last L - 1 others are read."""
    module, variables = model
    evaluator, cases = evaluator_on(store), leave_one_out(store).test["test"]
    known = np.arange(store.catalog.num_rows) % 3 != 0
    known[store.tokens[store.offsets[cases.users[0]] : cases.rows[0]]] = False
    known[[PAD, MASK]] = True
    table = dict(variables["params"]["item_table"])
    table["embedding"] = np.where(known[:, None], table["embedding"], np.nan)
    params = {**variables["params"], "item_table": table}
    settings = {"known": known, "max_length": L, "causal": causal}
    kept = [
        [int(r) for r in range(store.offsets[user], row) if known[store.tokens[r]]][-(L - 1) :]
        for user, row in zip(cases.users, cases.rows)
    ]
    assert len(kept[0]) == 0 and len({len(rows) for rows in kept}) > 2
    starts = np.concatenate([[0], np.cumsum([len(rows) + 1 for rows in kept])])
    rows = np.concatenate([[*rows, target] for rows, target in zip(kept, cases.rows)])
    short = SimpleNamespace(
        tokens=store.tokens[rows], ratings=store.ratings[rows], timestamps=store.timestamps[rows],
        offsets=starts, catalog=store.catalog, num_interactions=len(rows),
    )  # fmt: skip
    alone = Cases(np.arange(len(cases)), starts[1:] - 1, {})
    found = evaluator.encode(ScoringModel(module, {"params": params}, **settings), cases)
    expected = evaluator_on(short).encode(ScoringModel(module, variables, **settings), alone)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    empty = [not rows for rows in kept]
    assert (found[empty] == 0).all() == causal  # only biases remain: a causal model learns no MASK
    ranks = evaluator.rank_model(ScoringModel(module, {"params": params}, **settings), cases).ranks
    given = evaluator.rank_model(
        ScoringModel(module, variables, **settings), cases, hidden=found
    ).ranks
    np.testing.assert_array_equal(ranks, given)


@pytest.mark.parametrize("max_length", [2, 6, 20, 200])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_windows_are_those_of_a_loop_over_cases(store, max_length, share):
    known = np.random.default_rng(0).random(store.catalog.num_rows) < share
    cases = leave_one_out(store).test["test"]
    first = Cases(cases.users[:2], store.offsets[cases.users[:2]], {})  # empty histories
    for asked in (cases, first, cases[::-1]):
        window = evaluator_on(store).window(asked, known, max_length)
        expected = [
            [r for r in range(start, stop) if known[store.tokens[r]]][-(max_length - 1) :]
            for start, stop in zip(store.offsets[asked.users], asked.rows)
        ]
        assert window.lengths.tolist() == [len(rows) for rows in expected]
        width = window.source.shape[1]
        assert width == max_length or width > window.lengths.max()
        assert window.source.tolist() == [rows + [0] * (width - len(rows)) for rows in expected]


@pytest.mark.parametrize(("mesh_model", "batch_size", "item_chunk"), [(1, 24, 999), (4, 8, 32)])
def test_batch_size_mesh_and_chunks_change_nothing(
    store, model, mesh_model, batch_size, item_chunk
):
    module, variables = model
    split = leave_one_out(store)
    known = train_counts(store, split.train_stop) > 0
    scoring = ScoringModel(module, variables, known=known, max_length=L, causal=False)
    expected = evaluator_on(store).rank_model(scoring, split.validation)
    found = evaluator_on(
        store, model=mesh_model, batch_size=batch_size, item_chunk=item_chunk
    ).rank_model(scoring, split.validation)
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.top, expected.top)


def test_the_target_changes_no_score(store, model):
    """The lists for a case are the same, whatever the target, its thumb, and what comes after."""
    module, variables = model
    cases = leave_one_out(store).validation
    everything = np.ones(store.catalog.num_rows, bool)
    scoring = ScoringModel(module, variables, known=everything, max_length=L, causal=False)
    expected = evaluator_on(store).rank_model(scoring, cases).top

    class Changed:
        """The store with another item, rating and time at every target."""

        def __init__(self):
            self.tokens = np.array(store.tokens)
            self.tokens[cases.rows] = 2 + (self.tokens[cases.rows] + 5) % len(store.catalog)
            self.offsets, self.catalog = store.offsets, store.catalog
            self.ratings = np.array(store.ratings)
            self.ratings[cases.rows] = 1 + (self.ratings[cases.rows] + 5) % 10
            self.timestamps = np.array(store.timestamps)
            self.timestamps[cases.rows] += 86_400

    found = evaluator_on(Changed()).rank_model(scoring, cases).top
    np.testing.assert_array_equal(found, expected)


def test_broken_parameters_are_an_error(store, model):
    module, variables = model
    broken = jax.tree.map(lambda x: x * np.nan, variables)
    with pytest.raises(UserError, match="NaN or infinite"):
        everything = np.ones(store.catalog.num_rows, bool)
        scoring = ScoringModel(module, broken, known=everything, max_length=L, causal=False)
        evaluator_on(store).rank_model(scoring, leave_one_out(store).validation)


class Scores:
    """The same scores for whoever asks, made from the number of cases."""

    name = "mine"

    def __init__(self, of):
        self.of = of

    def scores(self, cases, store):
        return self.of(len(cases))


@pytest.mark.parametrize("shape", [(40,), (3,), (), (41,), (0,)])
def test_scores_of_another_shape_are_an_error_that_says_which(store, shape):
    cases = leave_one_out(store).test["test"]
    wrong = Scores(lambda count: np.zeros((count, *shape)))
    with pytest.raises(
        UserError, match=r"mine gave scores of shape \(16.*expected \(16, 256\), "
    ) as e:
        evaluator_on(store).rank_scorer(wrong, cases)
    assert "item i of the 40 of the catalog is column FIRST_ITEM + i = 2 + i" in str(e.value)


@pytest.mark.parametrize("made", [lambda shape: sp.csr_array(shape), lambda shape: object()])
def test_scores_that_are_no_dense_array_are_an_error_that_says_so(store, made):
    cases = leave_one_out(store).test["test"]
    wrong = Scores(lambda count: made((count, store.catalog.num_rows)))
    with pytest.raises(
        UserError, match=r"mine gave scores as (csr_array|object); expected a dense"
    ):
        evaluator_on(store).rank_scorer(wrong, cases)


@pytest.mark.parametrize("value", [-np.inf, np.nan])
def test_a_scorer_has_to_be_finite_where_items_are(store, value):
    cases = leave_one_out(store).test["test"]
    scores = np.tile(np.arange(store.catalog.num_rows, dtype=np.float64), (16, 1))
    scores[:, ~store.catalog.is_item()] = value  # not read
    evaluator_on(store).rank_scorer(Scores(lambda _: scores), cases)
    scores[3, 5] = value
    with pytest.raises(UserError, match=r"mine gave an item a score .* such as -1e30, keeps"):
        evaluator_on(store).rank_scorer(Scores(lambda _: scores), cases)


def test_a_very_low_score_keeps_an_item_out(store):
    cases = leave_one_out(store).test["test"]
    scores = np.tile(np.arange(store.catalog.num_rows, dtype=np.float32), (16, 1))
    scores[:, 7] = -1e30
    ranking = evaluator_on(store).rank_scorer(Scores(lambda _: scores), cases)
    assert (ranking.top != 7).all()


def test_a_store_is_all_an_evaluator_needs(store, model):
    module, variables = model
    cases = leave_one_out(store).test["test"]
    known = store.catalog.is_item()
    scoring = ScoringModel(module, variables, known=known, max_length=L, causal=False)
    found = Evaluator(store).rank_model(scoring, cases)
    source = {**store.manifest["source"], "max_rating": 10}
    rated = SequenceStore(store.path, {**store.manifest, "source": source})
    by_scale = Evaluator(rated).rank_model(scoring, cases)
    expected = evaluator_on(store).rank_model(scoring, cases)
    np.testing.assert_array_equal(by_scale.ranks, expected.ranks)  # thumbs up from 6, not from 3
    assert (found.ranks != expected.ranks).any()


def test_ranks_among_candidates_count_only_them(store):
    cases = leave_one_out(store).test["test"]
    generator = np.random.default_rng(0)
    table = {
        int(row): generator.integers(0, 6, store.catalog.num_rows).astype(np.float32)
        for row in cases.rows
    }
    targets = store.tokens[cases.rows]
    others = generator.integers(0, 42, (len(cases), 12)).astype(np.int32)  # PAD and MASK as well
    among = np.concatenate([targets[:, None], others], axis=1)
    found = evaluator_on(store).rank_scorer(Fixed(table), cases, among).ranks
    for rank, row, target, start, candidates in zip(
        found, cases.rows, targets, store.offsets[cases.users], among
    ):
        seen = set(store.tokens[start:row].tolist())
        rivals = {t for t in candidates.tolist() if t >= 2} - seen - {target}
        scores = table[int(row)]
        assert rank == 1 + sum(scores[t] >= scores[target] for t in rivals)
