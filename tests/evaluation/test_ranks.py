"""Ranks and top-k against a NumPy transcription of the rule, and the rule's laws."""

import functools

import chex
import jax
import numpy as np
import pytest

from bert4rec_jax.evaluation.ranks import (
    best_by_vectors,
    best_items,
    largest,
    list_order,
    rank_by_scores,
    rank_by_vectors,
)
from bert4rec_jax.sharding import Along, items_mesh, make_mesh, put

V, D, B = 64, 6, 8
IS_ITEM = (np.arange(V) >= 2) & (np.arange(V) < 50)
EVERYTHING = np.ones(V, bool)

by_scores = jax.jit(functools.partial(rank_by_scores, top=5))


def expected_rank(scores, target, excluded, known=EVERYTHING):
    """1 + #{j != target, an item, not excluded: not (s_j < s_target)}, one item at a time."""
    value = scores[target] if known[target] else -np.inf
    rank = 1
    for j in range(V):
        if IS_ITEM[j] and j != target and j not in excluded:
            other = scores[j] if known[j] else -np.inf
            rank += not (other < value)
    return rank


def expected_top(scores, excluded, known=EVERYTHING, k=5):
    """Items by score, then token."""
    items = [j for j in range(V) if IS_ITEM[j] and j not in excluded and known[j]]
    return sorted(items, key=lambda j: (-scores[j], j))[:k]


def problem(seed, low=-3, high=4):
    """Integer-valued, so that ties are many and every device count agrees exactly."""
    generator = np.random.default_rng(seed)
    hidden = generator.integers(low, high, (B, D)).astype(np.float32)
    vectors = generator.integers(low, high, (V, D)).astype(np.float32)
    bias = generator.integers(low, high, V).astype(np.float32)
    targets = generator.integers(2, 50, B).astype(np.int32)
    excluded = np.zeros((B, 7), np.int32)
    for row, target in zip(excluded, targets):
        count = generator.integers(0, 7)
        row[:count] = generator.choice(np.setdiff1d(np.arange(2, 50), [target]), count)
    return hidden, vectors, bias, targets, excluded


def mesh_of(shape):
    full = make_mesh()
    devices = np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    return jax.sharding.Mesh(devices, full.axis_names, axis_types=full.axis_types)


def test_ranks_by_hand():
    scores = np.full((1, V), -9.0, np.float32)
    scores[0, 2:7] = [5, 3, 3, 1, 4]
    scores[0, [0, 1, 60]] = 99  # PAD, MASK and padded rows never count
    targets, nothing = np.array([3]), np.zeros((1, 2), np.int32)
    ranked = by_scores(scores, targets, nothing, IS_ITEM, EVERYTHING)
    assert ranked.ranks.tolist() == [4]  # after 5, 4 and the tied 3
    assert ranked.top.tolist() == [[2, 6, 3, 4, 5]]
    assert ranked.scores.tolist() == [[5, 4, 3, 3, 1]]
    seen = np.array([[2, 4]])
    ranked = by_scores(scores, targets, seen, IS_ITEM, EVERYTHING)
    assert ranked.ranks.tolist() == [2]
    assert ranked.top.tolist()[0][:3] == [6, 3, 5]


def test_a_constant_scorer_gains_nothing():
    ranked = by_scores(
        np.zeros((2, V), np.float32), np.array([2, 49]), np.zeros((2, 1), np.int32), IS_ITEM,
        EVERYTHING,
    )  # fmt: skip
    assert ranked.ranks.tolist() == [48, 48]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_reported(bad):
    scores = np.zeros((2, V), np.float32)
    scores[1, 7] = bad
    arguments = np.array([3, 3]), np.zeros((2, 1), np.int32), IS_ITEM
    assert by_scores(scores, *arguments, EVERYTHING).broken.tolist() == [False, True]
    unknown = EVERYTHING.copy()
    unknown[7] = False
    assert not by_scores(scores, *arguments, unknown).broken.any()


@pytest.mark.parametrize("shape", [(1, 1), (2, 4)])
def test_a_broken_score_is_reported_in_whichever_chunk_it_is(shape):
    hidden, vectors, bias, targets, excluded = problem(0)
    rank = jax.jit(functools.partial(rank_by_vectors, top=5, chunk=16))
    for item in (3, 20, 49):
        broken = vectors.copy()
        broken[item] = np.nan
        with jax.set_mesh(mesh_of(shape)):
            ranked = rank(hidden, broken, bias, targets, excluded, IS_ITEM, EVERYTHING)
        assert ranked.broken.all()


def test_a_target_whose_score_is_not_a_number_comes_last():
    scores = np.zeros((1, V), np.float32)
    scores[0, 3] = np.nan
    ranked = by_scores(scores, np.array([3]), np.zeros((1, 1), np.int32), IS_ITEM, EVERYTHING)
    assert ranked.ranks.tolist() == [48]


def test_scores_have_all_bits_of_float32_on_every_platform():
    """By default, GPUs and TPUs multiply with fewer."""
    arguments = (*problem(0), IS_ITEM, EVERYTHING)
    ranking = jax.jit(functools.partial(rank_by_vectors, top=5, chunk=16)).lower(*arguments)
    products = [line for line in ranking.as_text().splitlines() if "stablehlo.dot_general" in line]
    assert products and all("[HIGHEST, HIGHEST]" in line for line in products)


def test_an_unknown_item_comes_last_and_is_never_listed():
    scores = np.zeros((1, V), np.float32)
    scores[0, 5] = 9
    known = EVERYTHING.copy()
    known[[5, 6]] = False
    ranked = by_scores(scores, np.array([5]), np.zeros((1, 1), np.int32), IS_ITEM, known)
    assert ranked.ranks.tolist() == [48]
    assert not {5, 6} & set(ranked.top[0].tolist())


def test_short_lists_are_padded():
    scores = np.zeros((1, V), np.float32)
    seen = np.array([[j for j in range(2, 50) if j not in (9, 11)]])
    ranked = by_scores(scores, np.array([9]), seen, IS_ITEM, EVERYTHING)
    assert ranked.top.tolist() == [[9, 11, 0, 0, 0]]
    assert ranked.scores[0, 2:].tolist() == [-np.inf] * 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "chunk"), [((1, 1), V), ((1, 1), 16), ((8, 1), 32), ((2, 4), 8)])
def test_any_mesh_and_chunk_equal_the_transcription(seed, shape, chunk):
    hidden, vectors, bias, targets, excluded = problem(seed)
    known = np.random.default_rng(seed).random(V) < 0.9
    scores = hidden @ vectors.T + bias
    with jax.set_mesh(mesh_of(shape)):
        ranked = jax.jit(functools.partial(rank_by_vectors, top=5, chunk=chunk))(
            hidden, vectors, bias, targets, excluded, IS_ITEM, known
        )
        same = by_scores(scores, targets, excluded, IS_ITEM, known)
    chex.assert_shape([ranked.ranks, ranked.top], [(B,), (B, 5)])
    for row in range(B):
        arguments = scores[row], targets[row], set(excluded[row].tolist())
        assert ranked.ranks[row] == same.ranks[row] == expected_rank(*arguments, known)
        assert ranked.top[row].tolist() == expected_top(arguments[0], arguments[2], known)
        assert same.top[row].tolist() == ranked.top[row].tolist()


@pytest.mark.parametrize("shape", [(1, 1), (2, 4)])
def test_items_to_rank_among_are_found_in_every_chunk(shape):
    hidden, vectors, bias, targets, excluded = problem(0)
    draw = np.random.default_rng(0).permuted(np.tile(np.arange(2, 50), (B, 1)), axis=1)
    rest = targets, excluded, IS_ITEM, EVERYTHING, draw[:, :20].astype(np.int32)
    expected = by_scores(hidden @ vectors.T + bias, *rest)
    rank = jax.jit(functools.partial(rank_by_vectors, top=5, chunk=16))
    with jax.set_mesh(mesh_of(shape)):
        found = rank(hidden, vectors, bias, *rest)
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.top, expected.top)


def test_only_the_candidates_are_ranked():
    scores = np.full((1, V), -9.0, np.float32)
    scores[0, 2:7] = [5, 3, 3, 1, 4]
    among = np.array([[5, 2, 4, 0, 0]])  # the target 5, two others, padding
    nothing = np.zeros((1, 2), np.int32)
    ranked = by_scores(scores, np.array([5]), nothing, IS_ITEM, EVERYTHING, among)
    assert ranked.ranks.tolist() == [3]
    assert ranked.top.tolist() == [[2, 4, 5, 0, 0]]


@pytest.mark.parametrize("model", [1, 4])
def test_all_items_as_candidates_are_the_whole_catalog(model):
    hidden, vectors, bias, targets, excluded = problem(0)
    arguments = (hidden, vectors, bias, targets, excluded, IS_ITEM, EVERYTHING)
    everything = np.broadcast_to(np.arange(V, dtype=np.int32), (B, V))
    rank = jax.jit(functools.partial(rank_by_vectors, top=5, chunk=16))
    with jax.set_mesh(make_mesh(model=model)):
        expected, found = rank(*arguments), rank(*arguments, everything)
    chex.assert_trees_all_equal(found, expected)


@pytest.mark.parametrize("by_token", [True, False])
def test_lists_are_ordered_by_row_score_and_token(by_token):
    generator = np.random.default_rng(0)
    levels = np.array([-np.inf, -3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 1.5, 3e38, np.inf])
    scores = generator.choice(levels.astype(np.float32), 600)
    rows = np.sort(generator.integers(0, 9, 600)) * (2**31 // 9)
    tokens = generator.permutation(600).astype(np.int32)
    if by_token:
        tokens.sort()
    expected = np.lexsort((tokens, -scores, rows))
    np.testing.assert_array_equal(list_order(scores, tokens, rows), expected)


def test_best_items_and_list_order_are_the_same_rule():
    generator = np.random.default_rng(0)
    scores = generator.integers(-3, 4, (B, V)).astype(np.float32)
    excluded = generator.integers(0, 50, (B, 45)).astype(np.int32)
    best, tokens = jax.jit(functools.partial(best_items, top=12))(scores, excluded, IS_ITEM)
    for row in range(B):
        expected = expected_top(scores[row], set(excluded[row].tolist()), k=12)
        padding = 12 - len(expected)
        assert tokens[row].tolist() == expected + [0] * padding
        assert best[row].tolist() == [scores[row, t] for t in expected] + [-np.inf] * padding
    items = np.flatnonzero(IS_ITEM).astype(np.int32)
    order = list_order(
        np.concatenate([scores[1, items], scores[0, items]]),
        np.concatenate([items, items]),
        np.repeat([1, 0], len(items)),
    )
    listed = np.concatenate([items, items])[order].tolist()
    assert listed == [t for row in (0, 1) for t in expected_top(scores[row], set(), k=V)]


@pytest.mark.parametrize(("model", "chunk", "top"), [(1, V, 5), (1, 16, 5), (4, 5, 12), (8, V, 8)])
def test_scanning_in_chunks_and_over_devices_lists_the_best_items(model, chunk, top):
    hidden, vectors, bias, _, excluded = problem(3)
    listed = IS_ITEM & (np.arange(V) % 7 != 0)
    mesh = make_mesh(model=model)
    with jax.set_mesh(mesh):
        scores, tokens = jax.jit(functools.partial(best_by_vectors, top=top, chunk=chunk))(
            hidden, vectors, bias, excluded, listed
        )
    all_scores = hidden @ vectors.T + bias
    for row in range(B):
        expected = expected_top(all_scores[row], excluded[row], listed, top)
        assert tokens[row].tolist() == expected
        assert scores[row].tolist() == all_scores[row][expected].tolist()


def test_scanning_marks_places_that_no_item_fills():
    hidden, vectors, bias, _, excluded = problem(4)
    listed = np.arange(V) == 5
    scores, tokens = jax.jit(functools.partial(best_by_vectors, top=3, chunk=16))(
        hidden, vectors, bias, np.zeros_like(excluded), listed
    )
    assert tokens.tolist() == [[5, 0, 0]] * B
    assert np.isneginf(np.asarray(scores)[:, 1:]).all()


def test_approximate_scanning_lists_only_what_may_be_listed():
    hidden, vectors, bias, _, excluded = problem(5)
    scan = functools.partial(best_by_vectors, top=5, chunk=32)
    exact = jax.jit(scan)(hidden, vectors, bias, excluded, IS_ITEM)
    found = jax.jit(functools.partial(scan, recall=0.9))(hidden, vectors, bias, excluded, IS_ITEM)
    np.testing.assert_array_less(np.asarray(found[0]), np.asarray(exact[0]) + 1e-6)
    for tokens, seen in zip(np.asarray(found[1]), excluded):
        assert IS_ITEM[tokens[tokens > 0]].all() and not set(tokens[tokens > 0]) & set(seen)


@pytest.mark.parametrize("columns", [1000, 1024])
def test_the_largest_of_long_rows_are_those_of_top_k(columns):
    scores = np.random.default_rng(0).integers(0, 300, (4, columns)).astype(np.float32)
    scores[1] = 7
    scores[2, 3:] = -np.inf
    scores[3] -= 999  # below anything that fills up the last block
    for found, expected in zip(
        jax.jit(largest, static_argnums=1)(scores, 3), jax.lax.top_k(scores, 3)
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_ten_million_items_over_eight_devices():
    items, top = 10_000_128, 20
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((items, 16), np.float32)
    bias = generator.standard_normal(items, np.float32)
    listed = generator.random(items) < 0.9
    hidden = generator.standard_normal((2, 16), np.float32)
    best = jax.lax.top_k(np.where(listed, hidden @ vectors.T + bias, -np.inf), top + 5)[1]
    excluded = np.asarray(best)[:, ::4].astype(np.int32)
    expected = [row[~np.isin(row, out)][: top - 2] for row, out in zip(np.asarray(best), excluded)]
    mesh = items_mesh(jax.devices(), items)
    catalog = [put(mesh, Along.ITEMS, x) for x in (vectors, bias, listed)]
    assert [len(part.data) for part in catalog[0].addressable_shards] == [items // 8] * 8
    scan = jax.jit(functools.partial(best_by_vectors, top=top - 2, chunk=65_536))
    with jax.set_mesh(mesh):
        _, tokens = scan(hidden, *catalog[:2], excluded, catalog[2])
    np.testing.assert_array_equal(tokens, expected)
