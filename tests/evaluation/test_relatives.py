"""Relatives: a worked example, SciPy's optimum of the likelihood, loops over pairs, laws."""

import tracemalloc

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp

from bert4rec_jax.data.split import train_counts
from bert4rec_jax.evaluation import likeness, relatives
from bert4rec_jax.evaluation.covisitation import DISTANCE, Covisitation, Followers
from bert4rec_jax.evaluation.lift import boosts_of, gains
from bert4rec_jax.evaluation.likeness import Likeness
from bert4rec_jax.evaluation.markov import transitions
from bert4rec_jax.evaluation.relatives import EVENTS, Relatives

ALL = np.arange(30)


def names(store, **kinds):
    """Kinds of names, each as letters -> names: `cast={"ab": "xy"}` gives both x and y."""
    found = {}
    for kind, given in kinds.items():
        width = 26
        rows = sp.lil_array((store.catalog.num_rows, width), dtype=bool)
        for letters, own in given.items():
            for letter in letters:
                for name in own:
                    rows[store.catalog.token(letter), ord(name) - ord("a")] = True
        found[kind] = rows.tocsr()
    return Likeness(found, {})


def test_rows_are_unit_vectors_and_rare_names_weigh_more(five):
    tokens = five.tokens("abcd")
    found = names(five.store, cast={"a": "xy", "b": "x", "c": "y", "d": "y"}, crew={"abcd": "z"})
    rows = found.rows(tokens)
    assert list(rows) == ["cast"]  # a name that all have says nothing
    x, y = np.log(4 / 2), np.log(4 / 3)
    cosines = (rows["cast"] @ rows["cast"].T).toarray()
    length = np.hypot(x, y)
    expected = [[1, x / length, y / length, y / length], [x / length, 1, 0, 0]]
    np.testing.assert_allclose(cosines[:2], expected)
    np.testing.assert_allclose(cosines[2:, 2:], 1)


def test_values_are_near_by_their_cosine(five):
    vectors = np.zeros((five.store.catalog.num_rows, 3), np.float32)
    vectors[five.tokens("abc")] = [[2, 0, 0], [1, 1, 0], [0, 0, 5]]
    rows = Likeness({}, {"year": vectors}).rows(five.tokens("abcd"))["year"]
    half = np.sqrt(0.5)
    expected = [[1, half, 0, 0], [half, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose((rows @ rows.T).toarray(), expected, atol=1e-7)


def test_a_number_that_all_items_share_says_nothing(five):
    tokens = five.tokens("abcd")
    same = np.zeros((five.store.catalog.num_rows, 3), np.float32)
    same[tokens] = [0.4, 0.6, 0]
    unknown = same.copy()
    unknown[tokens[3]] = 0
    nothing = np.zeros_like(same)
    rows = Likeness({}, {"price": same, "size": unknown, "year": nothing}).rows(tokens)
    assert list(rows) == ["size"]  # whether it is known


def test_rare_names_are_shared_and_few(five, monkeypatch):
    monkeypatch.setattr(likeness, "FEW", 2)
    tokens = five.tokens("abcd")
    found = names(five.store, cast={"ab": "x", "abc": "y", "d": "w"}, crew={"cd": "v"})
    assert found.rare_names(tokens).toarray().T.tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]
    monkeypatch.setattr(likeness, "MOST_PAIRS", 2)  # a-b and b-a
    assert found.rare_names(tokens).shape == (4, 1)
    assert Likeness({}, {}).rare_names(tokens).shape == (4, 0)


def test_a_worked_example(five):
    """Trained on abc, abd, acb, bd and a; b and c share the only name.

    Their cosine is 1, so z = w_0 + w_1 for b-c and c-b, and the ridge makes both weights equal: w.
    There are 2 such transitions, b-c and c-b. Popularity expects C_b q_c + C_c q_b = 3 · 2/12 +
    1 · 4/12 = 5/6, so 5/6 e^2w - 2 + w = 0.
    """
    stop = five.stop(3, 3, 3, 2, 1)
    alike = names(five.store, cast={"bc": "x"})
    found = Relatives.of(alike, five.store, stop, distance=DISTANCE, k=2)
    w = found.weights["cast"]
    assert w == pytest.approx(0.3436, abs=1e-3)
    assert 5 / 6 * np.exp(2 * w) + w == pytest.approx(2, abs=1e-3)
    b, c = five.tokens("bc")
    assert found.items[[b, c]].tolist() == [[c, 0], [b, 0]]
    np.testing.assert_allclose(found.logs[[b, c]], [[2 * w, 0], [2 * w, 0]], atol=1e-3)
    np.testing.assert_allclose(found.shares[[b, c]], [[2 / 12, 0], [4 / 12, 0]])
    np.testing.assert_allclose(found.trust[[b, c]], [[50 / 52, 0], [50 / 54, 0]])
    excess = found.excess(3.0)[b, 0]
    assert excess == pytest.approx(np.exp(3 * 50 / 52 * 2 * w) - 1, rel=1e-2)
    assert (found.items > 0).sum() == 2


def test_items_that_avoid_each_other_are_no_relatives(five):
    """a and b share a name, and so do c and d: 2 1/2 transitions where 2 2/3 are expected."""
    alike = names(five.store, cast={"ab": "x", "cd": "y"})
    found = Relatives.of(alike, five.store, five.stop(3, 3, 3, 2, 1), distance=DISTANCE)
    assert found.weights["cast"] < 0
    assert not found.items.any() and not found.excess(3.0).any()


@pytest.fixture
def related(write):
    """Eighty users watch three of four series of four movies, one whole series after the other."""
    generator = np.random.default_rng(0)
    series = ["abcd", "efgh", "ijkl", "mnop"]
    histories = []
    for _ in range(80):
        chosen = generator.permutation(4)[:3]
        histories.append("".join("".join(generator.permutation(list(series[s]))) for s in chosen))
    letters = write(histories)
    alike = names(
        letters.store,
        cast={own: name for own, name in zip(series, "wxyz")},
        crew={"aei": "u", "bfj": "v"},
    )
    return letters, alike


def test_what_goes_together_is_found(related):
    letters, alike = related
    store = letters.store
    found = Relatives.of(alike, store, store.offsets[1:], distance=DISTANCE)
    assert found.weights["cast"] > 0.5 > 0 > found.weights["crew"]
    for series in ("abcd", "efgh", "ijkl", "mnop"):
        for letter in series:
            own = {store.catalog.token(other) for other in series if other != letter}
            row = found.items[store.catalog.token(letter)]
            assert set(row[row > 0].tolist()) == own
    events = train_counts(store, store.offsets[1:])
    there = found.items > 0
    np.testing.assert_allclose(found.shares[there], events[found.items[there]] / events.sum())
    np.testing.assert_allclose(found.trust[there], EVENTS / (EVENTS + events[found.items[there]]))
    assert not found.logs[~there].any() and not found.shares[~there].any()
    assert (np.diff(found.logs, axis=1) <= 0).all()


def test_the_weights_are_the_optimum_of_the_likelihood():
    generator = np.random.default_rng(1)
    x = np.column_stack([np.ones(400), generator.random((400, 3))])
    expected = generator.random(400) * 3
    true = np.array([-0.5, 2.0, -1.0, 0.0])
    y = generator.poisson(expected * np.exp(x @ true)).astype(float)

    def objective(w):
        z = x @ w
        return expected @ np.exp(z) - y @ z + relatives.RIDGE / 2 * (w @ w)

    best = scipy.optimize.minimize(objective, np.zeros(4), tol=1e-12).x
    np.testing.assert_allclose(relatives._poisson(x, y, expected), best, atol=2e-4)


@pytest.mark.parametrize("at_once", [1, 1_000, 1 << 22])
def test_embeddings_are_compared_a_few_pairs_at_a_time(monkeypatch, at_once):
    """Of embeddings, and of numbers on a curve, both of which are not known of some items."""
    monkeypatch.setattr(relatives, "_NUMBERS_AT_ONCE", at_once)
    generator = np.random.default_rng(0)
    cast = sp.csr_array(np.repeat(np.eye(6, dtype=bool), 5, axis=0))
    text = generator.normal(size=(30, 8)).astype(np.float32)
    year = np.eye(9, dtype=np.float32)[generator.integers(9, size=30)]
    text[3] = year[4] = 0
    pairs = relatives._Pairs.of(Likeness({"cast": cast}, {"text": text, "year": year}), ALL)
    i, j, cosines = pairs.among(ALL)
    assert len(i) == 30 * 4 and list(pairs.rows) == ["cast", "text", "year"]
    exact = pairs.rows["text"].astype(float)
    np.testing.assert_allclose(cosines[:, 1], (exact[i] * exact[j]).sum(axis=1), atol=1e-14)
    for column, vectors in enumerate((text, year), start=1):
        lengths = np.linalg.norm(vectors, axis=1)
        norms = lengths[i] * lengths[j]
        expected = (vectors[i] * vectors[j]).sum(axis=1) / np.where(norms > 0, norms, 1)
        np.testing.assert_allclose(cosines[:, column], expected, atol=1e-6)


def test_long_embeddings_take_little_memory():
    cast = sp.csr_array(np.repeat(np.eye(10, dtype=bool), 30, axis=0))
    text = np.random.default_rng(0).normal(size=(300, 1_000)).astype(np.float32)
    items = np.arange(300)
    pairs = relatives._Pairs.of(Likeness({"cast": cast}, {"text": text}), items)
    tracemalloc.start()
    try:
        first, _, _ = pairs.among(items)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(first) == 300 * 29
    assert peak < 100e6  # 418 MB with the rows of all pairs at once


@pytest.mark.parametrize("seed", range(4))
def test_it_agrees_with_loops_over_all_pairs(store, seed, monkeypatch):
    """Names, numbers, rare names and the order of relatives, written out pair by pair."""
    monkeypatch.setattr(likeness, "FEW", 6)
    generator = np.random.default_rng(seed)
    size, stop = store.catalog.num_rows, store.offsets[1:] - 2
    sets = {kind: generator.random((size, 12)) < 0.12 for kind in ("cast", "keywords")}
    year = generator.random((size, 5)).astype(np.float32) * (generator.random((size, 1)) < 0.8)
    alike = Likeness({kind: sp.csr_array(own) for kind, own in sets.items()}, {"year": year})
    found = Relatives.of(alike, store, stop, distance=DISTANCE, k=3)
    events = train_counts(store, stop)
    seen = np.flatnonzero(events)

    def vectors(i):
        for own in sets.values():
            weights = [np.log(len(seen) / max(own[seen, m].sum(), 1)) for m in range(12)]
            yield own[i] * weights
        yield year[i].astype(float)

    def cosines(i, j):
        for a, b in zip(vectors(i), vectors(j)):
            norm = np.linalg.norm(a) * np.linalg.norm(b)
            yield a @ b / norm if norm else 0.0

    def rare(i, j):
        return any(
            own[i, m] and own[j, m] and own[seen, m].sum() <= 6
            for own in sets.values()
            for m in range(12)
        )

    pairs = [(i, j) for i in seen for j in seen if i != j and rare(i, j)]
    x = np.array([[1, *cosines(i, j)] for i, j in pairs])
    counts = transitions(store, stop, DISTANCE).toarray().astype(float)
    y = np.array([counts[i, j] for i, j in pairs])
    expected = np.array([counts[i].sum() * events[j] / events.sum() for i, j in pairs])
    asked = expected > 0
    weights = relatives._poisson(x[asked], y[asked], expected[asked])
    assert list(found.weights) == ["cast", "keywords", "year"]
    assert list(found.weights.values()) == pytest.approx(weights[1:], abs=2e-4)
    z = dict(zip(pairs, x @ weights))
    for i in range(size):
        of_i = sorted((-z[pair], pair[1]) for pair in z if pair[0] == i and z[pair] > 5e-4)[:3]
        assert -found.logs[i, : len(of_i)] == pytest.approx([v for v, _ in of_i], abs=2e-3)
        for token, (value, _) in zip(found.items[i], of_i):
            assert z[i, token] == pytest.approx(-value, abs=2e-3)


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
def test_parts_of_any_size_give_the_same(related, monkeypatch, at_once):
    letters, alike = related
    stop = letters.store.offsets[1:]
    whole = Relatives.of(alike, letters.store, stop, distance=DISTANCE, k=2)
    monkeypatch.setattr(relatives, "_PAIRS_AT_ONCE", at_once)
    parts = Relatives.of(alike, letters.store, stop, distance=DISTANCE, k=2)
    np.testing.assert_array_equal(parts.items, whole.items)
    np.testing.assert_allclose(parts.logs, whole.logs, atol=1e-3)
    assert (whole.items > 0).sum(axis=1).max() == 2


def test_a_sample_of_items_is_enough_to_learn_from(related, monkeypatch):
    letters, alike = related
    monkeypatch.setattr(relatives, "_PAIRS_TO_FIT", 60)
    found = Relatives.of(alike, letters.store, letters.store.offsets[1:], distance=DISTANCE)
    assert found.weights["cast"] > 0.5


@pytest.mark.parametrize("kinds", [{}, {"cast": {"abcde": "x"}}, {"cast": {"a": "x", "b": "y"}}])
def test_without_a_shared_rare_name_there_are_no_relatives(five, kinds, monkeypatch):
    monkeypatch.setattr(likeness, "FEW", 2)
    stop = five.stop(3, 3, 3, 2, 1)
    assert Relatives.of(names(five.store, **kinds), five.store, stop, distance=DISTANCE) is None


def test_only_what_training_has_seen_counts(write, monkeypatch):
    """What follows training changes nothing, and items without an event have no relatives."""
    monkeypatch.setattr(likeness, "FEW", 4)
    trained = ["ab", "ba", "ab", "ba", "ab", "ab"]
    found = []
    for held_out in ("cdcdcd", "eeeeee"):
        histories = [own + later for own, later in zip(trained, held_out)]
        letters = write([*histories, "abcde"])
        alike = names(letters.store, cast={"abcd": "x", "ae": "y"})
        stop = letters.stop(*[2] * 6, 0)
        learned = Relatives.of(alike, letters.store, stop, distance=DISTANCE)
        related = learned.items[letters.tokens("abcde")]
        assert not related[2:].any()
        assert letters.tokens("ba").tolist() == related[:2, 0].tolist()
        found.append((learned.logs.max(), learned.weights))
    assert found[0] == found[1]


def lifts(settings, letters, alike, history):
    store = letters.store
    followers = Followers.of(store, store.offsets[1:], 1_000)
    related = Relatives.of(alike, store, store.offsets[1:], distance=DISTANCE)
    found = settings.collection(followers, 9, related)
    found["uncounted"][:2] = True  # stand in for items without an event
    boosts = boosts_of(found, letters.tokens(history)[None].astype(np.int32))
    return np.exp(np.asarray(gains(boosts, 0, store.catalog.num_rows))[0]), related


def test_counts_are_smoothed_towards_relatives(related):
    """p(j | h) ∝ Σ_k d^k (c_kj + μ q_j e^(strength trust z)) / (C_k + μ), written out."""
    letters, alike = related
    store, size = letters.store, letters.store.catalog.num_rows
    settings = Covisitation(decay=0.5, smoothing=20.0, weight=1.0, relatives=2.0)
    found, learned = lifts(settings, letters, alike, "be")
    counts = transitions(store, store.offsets[1:], DISTANCE).toarray().astype(float)
    events = train_counts(store, store.offsets[1:])
    shares = events / events.sum()
    prior = np.tile(shares, (size, 1))
    for i, row in enumerate(learned.items):
        for j, z in zip(row[row > 0], learned.logs[i]):
            prior[i, j] *= np.exp(2.0 * EVENTS / (EVENTS + events[j]) * z)
    b, e = letters.tokens("be")
    chain, rest = np.zeros(size), 0.0
    for item, weight in ((e, 1.0), (b, 0.5)):
        norm = counts[item].sum() + 20.0
        chain += weight * (counts[item] + 20.0 * prior[item]) / norm
        rest += weight * 20.0 / norm
    trained = events > 0
    expected = chain[trained] / shares[trained] / rest
    np.testing.assert_allclose(found[trained], expected, rtol=1e-4)
    # What nobody has watched gains what a training event gains on average.
    average = np.average(found[trained], weights=events[trained])
    np.testing.assert_allclose(found[:2], average, rtol=1e-4)


def test_strength_0_is_popularity_alone(related):
    letters, alike = related
    followers = Followers.of(letters.store, letters.store.offsets[1:])
    learned = Relatives.of(alike, letters.store, letters.store.offsets[1:], distance=DISTANCE)
    plain = Covisitation().collection(followers, 9)
    for name, array in Covisitation().collection(followers, 9, learned).items():
        np.testing.assert_array_equal(array, plain[name])
    raised = Covisitation(relatives=1.0).collection(followers, 9, learned)
    assert raised["followers"].shape[1] == plain["followers"].shape[1] + learned.items.shape[1]
    np.testing.assert_array_equal(raised["uncovered"], plain["uncovered"])
