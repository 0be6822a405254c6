"""Covisitation: a worked example; on top of popularity it is the skip-gram Markov chain."""

from dataclasses import asdict, replace

import jax
import numpy as np
import pytest

from bert4rec_jax.data.split import leave_one_out, train_counts
from bert4rec_jax.evaluation import covisitation
from bert4rec_jax.evaluation.baselines import Popular
from bert4rec_jax.evaluation.covisitation import (
    DISTANCE,
    Covisitation,
    Followers,
    choose_covisitation,
)
from bert4rec_jax.evaluation.lift import Boosts, boosts_of, gains, gains_at
from bert4rec_jax.evaluation.markov import Markov, transitions
from bert4rec_jax.evaluation.ranks import best_by_vectors, rank_by_vectors
from bert4rec_jax.sharding import make_mesh

SETTINGS = Covisitation(decay=0.5, smoothing=2.0, weight=1.5, popularity=0.5)


def found_of(letters, stop, k=8, settings=SETTINGS, max_length=9):
    return settings.collection(Followers.of(letters.store, stop, k), max_length)


def histories(*rows):
    widest = max(map(len, rows))
    return np.array([[*row, *[0] * (widest - len(row))] for row in rows], np.int32)


def test_a_worked_example(five):
    """Trained on abc, abd, acb, bd and a; asked after a c. Nobody has watched e."""
    stop = five.stop(3, 3, 3, 2, 1)
    found = found_of(five, stop)
    # From a: b 2 1/2, c 1 1/2, d 1/2, of 4 1/2. From c: b 1, of 1. Shares of the 12 events: a and
    # b 4, c and d 2. c weighs 1, a 1/2; of both, the smoothing 2 is left of 3 and of 6 1/2.
    rest = 2 / 3 + 0.5 * 2 / 6.5
    b = (1 / 3 + 0.5 * 2.5 / 6.5) / (4 / 12) / rest
    c = 0.5 * 1.5 / 6.5 / (2 / 12) / rest
    d = 0.5 * 0.5 / 6.5 / (2 / 12) / rest
    boosts = boosts_of(found, histories(five.tokens("ac")))
    every = np.asarray(gains(boosts, 0, five.store.catalog.num_rows))[0]
    e = (1 / 3 + 0.5 * 4.5 / 6.5) / rest
    expected = [0, *(1.5 * np.log1p([b, c, d, e]))]
    assert five.by_letter(every, "abcde") == pytest.approx(expected, rel=1e-6)
    assert not every[:2].any() and not every[7:].any()


def test_items_without_counts_gain_what_an_average_event_does(store):
    """The mean of p / q over training events is 1, whatever the history."""
    stop = store.offsets[1:] - 2
    settings = Covisitation(decay=0.5, smoothing=20.0, weight=1.0)
    found = settings.collection(Followers.of(store, stop, 1_000), 11)
    counts = train_counts(store, stop)
    found["uncounted"][2] = True
    found["ratios"][found["followers"] == 2] = 0
    cases = leave_one_out(store).validation
    padded = histories(*cases.histories(store))
    lifts = np.exp(gains(boosts_of(found, padded), 0, store.catalog.num_rows))
    everything = Followers.of(store, stop, 1_000)
    whole = settings.collection(everything, 11)
    mean = np.average(
        np.exp(gains(boosts_of(whole, padded), 0, store.catalog.num_rows)), axis=1, weights=counts
    )
    np.testing.assert_allclose(lifts[:, 2], mean, rtol=1e-4)


@pytest.mark.parametrize("smoothing", [0.0012, 1e-6, 50.0])
def test_little_smoothing_of_large_counts(smoothing):
    """In float32, 1 - C / (C + μ) is 0 or a few wrong digits, and the true rest is μ / (C + μ).

    Item 2 was followed 300,000 times, two times in three by item 3, half of all events; nobody has
    watched item 4.
    """
    followers = Followers(
        np.array([[0], [0], [3], [0], [0]], np.int32),
        np.array([[0.0], [0], [200_000 / 0.5], [0], [0]]),
        np.array([0.0, 0, 300_000, 0, 0]),
        np.array([False, False, False, False, True]),
    )
    settings = replace(SETTINGS, smoothing=smoothing, weight=1.0)
    boosts = boosts_of(settings.collection(followers, 9), histories([2]))
    every = np.asarray(gains(boosts, 0, 5))[0]
    expected = np.log1p([200_000 / smoothing / 0.5, 300_000 / smoothing])
    assert every[3:] == pytest.approx(expected, rel=1e-6)
    candidates = gains_at(boosts, np.array([[3, 4]], np.int32))[0]
    assert np.asarray(candidates) == pytest.approx(expected, rel=1e-6)


def test_bundles_of_earlier_versions_have_no_uncovered_shares(five):
    found = found_of(five, five.stop(3, 3, 3, 2, 1))
    asked = histories(five.tokens("ac"), five.tokens("b"))
    expected = gains(boosts_of(found, asked), 0, five.store.catalog.num_rows)
    del found["uncovered"]
    before = gains(boosts_of(found, asked), 0, five.store.catalog.num_rows)
    np.testing.assert_allclose(before, expected, rtol=1e-6)


def test_bundles_of_earlier_versions_raise_only_what_was_counted(five):
    found = found_of(five, five.stop(3, 3, 3, 2, 1))
    del found["uncounted"]
    every = np.asarray(gains(boosts_of(found, histories(five.tokens("ac"))), 0, 8))[0]
    assert every[five.token("b")] > 0 == every[five.token("e")]


def test_popularity_moves_biases(five):
    counts = np.zeros(five.store.catalog.num_rows, np.int64)
    counts[five.tokens("abcd")] = 4, 4, 2, 2
    mean = 0.5 * (8 * np.log(4) + 4 * np.log(2)) / 12
    expected = [1.5 * 0.5 * np.log(n) - 1.5 * mean for n in (4, 4, 2, 2)]
    shift = SETTINGS.shift(counts)
    assert five.by_letter(shift, "abcde") == pytest.approx([*expected, 0], abs=1e-6)


def test_only_the_most_frequent_followers_are_kept(five):
    stop = five.stop(3, 3, 3, 2, 1)
    one, all_of_them = Followers.of(five.store, stop, 1), Followers.of(five.store, stop, 8)
    a = five.token("a")
    assert one.items[a].tolist() == [five.token("b")]
    assert all_of_them.items[a, :4].tolist() == [*five.tokens("bcd"), 0]
    np.testing.assert_array_equal(one.totals, all_of_them.totals)
    assert not one.lifted[five.token("d")].any()


@pytest.mark.parametrize("pairs_at_once", [1, 100, 1 << 22])
def test_followers_are_those_of_each_row_in_blocks_of_any_size(store, monkeypatch, pairs_at_once):
    stop = store.offsets[1:] - 2
    counts = transitions(store, stop, DISTANCE).toarray()
    shares = train_counts(store, stop) / train_counts(store, stop).sum()
    monkeypatch.setattr(covisitation, "_PAIRS_AT_ONCE", pairs_at_once)
    found = Followers.of(store, stop, 5)
    for row, items, lifted in zip(counts, found.items, found.lifted):
        best = [j for j in np.argsort(-row, kind="stable")[:5] if row[j]]
        assert items.tolist() == best + [0] * (5 - len(best))
        assert lifted[: len(best)].tolist() == (row[best] / shares[best]).tolist()
        assert not lifted[len(best) :].any()


def test_what_the_model_does_not_read_does_not_count(five):
    stop = five.stop(3, 3, 3, 2, 1)
    short, long = (found_of(five, stop, max_length=length) for length in (2, 9))
    a, last = histories(five.tokens("cba")), histories(five.tokens("a"))
    size = five.store.catalog.num_rows
    np.testing.assert_array_equal(
        gains(boosts_of(short, a), 0, size), gains(boosts_of(short, last), 0, size)
    )
    assert (gains(boosts_of(long, a), 0, size) != gains(boosts_of(long, last), 0, size)).any()


def test_an_empty_history_raises_nothing_and_padding_changes_nothing(five):
    found = found_of(five, five.stop(3, 3, 3, 2, 1))
    size = five.store.catalog.num_rows
    both = np.asarray(gains(boosts_of(found, histories(five.tokens("ab"), [])), 0, size))
    assert not both[1].any()
    wider = np.pad(histories(five.tokens("ab")), ((0, 0), (0, 5)))
    np.testing.assert_array_equal(gains(boosts_of(found, wider), 0, size)[0], both[0])


def test_candidates_and_chunks_gain_what_they_gain_in_the_whole_catalog():
    generator = np.random.default_rng(0)
    boosts = Boosts(
        generator.integers(0, 64, (5, 40)).astype(np.int32),
        generator.integers(0, 9, (5, 40)).astype(np.float32),
        np.full(5, 0.5, np.float32),
        np.arange(5, dtype=np.float32),
        generator.random(64) < 0.3,
    )
    every = np.asarray(gains(boosts, 0, 64))
    parts = [np.asarray(gains(boosts, first, 16)) for first in range(0, 64, 16)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), every)
    candidates = generator.integers(0, 64, (5, 7)).astype(np.int32)
    np.testing.assert_allclose(
        gains_at(boosts, candidates), np.take_along_axis(every, candidates, axis=1), rtol=1e-6
    )


def test_on_top_of_popularity_it_is_the_skip_gram_markov_chain(store):
    """log q + log(p / q) orders as p does; another implementation, sparse and on the host."""
    stop = store.offsets[1:] - 2
    settings = Covisitation(decay=0.5, smoothing=20.0, weight=1.0, popularity=1.0)
    # The chain leaves items out that weigh less than a thousandth: it looks at the last 10.
    found = settings.collection(Followers.of(store, stop, 64), 11)
    prior = Popular.fit(store, stop)
    markov = Markov.fit(store, stop, distance=DISTANCE, decay=0.5, smoothing=20.0, prior=prior)
    cases = leave_one_out(store).validation
    expected = markov.scores(cases, store)
    padded = histories(*cases.histories(store))
    counts = train_counts(store, stop)
    logs = np.asarray(gains(boosts_of(found, padded), 0, store.catalog.num_rows))
    logs = (logs + settings.shift(counts))[:, counts > 0]
    expected = np.log(expected[:, counts > 0])
    # Up to a number per history: the popularity's mean and what no item shares.
    moved = logs - expected
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1], moved.shape), atol=1e-5)


@pytest.mark.parametrize(("data", "model"), [(1, 8), (2, 4)])
def test_ranks_and_lists_are_the_same_over_devices(data, model):
    generator = np.random.default_rng(1)
    hidden = generator.integers(-3, 4, (8, 4)).astype(np.float32)
    vectors = generator.integers(-3, 4, (64, 4)).astype(np.float32)
    bias = np.zeros(64, np.float32)
    boosts = Boosts(
        generator.integers(2, 50, (8, 20)).astype(np.int32),
        generator.integers(0, 9, (8, 20)).astype(np.float32),
        np.ones(8, np.float32),
        generator.integers(0, 9, 8).astype(np.float32),
        generator.random(64) < 0.3,
    )
    is_item = np.arange(64) >= 2
    seen = np.zeros((8, 1), np.int32)
    targets = generator.integers(2, 50, 8).astype(np.int32)
    scores = hidden @ vectors.T + np.asarray(gains(boosts, 0, 64))
    above = (scores >= scores[np.arange(8), targets][:, None]) & is_item
    for size in (64, 8):
        with jax.set_mesh(make_mesh(data=data, model=model)):
            ranked = jax.jit(lambda *x: rank_by_vectors(*x[:-1], boosts=x[-1], top=3, chunk=size))(  # noqa: B023
                hidden, vectors, bias, targets, seen, is_item, is_item, boosts
            )
            best, tokens = jax.jit(
                lambda *x: best_by_vectors(*x[:-1], boosts=x[-1], top=3, chunk=size)  # noqa: B023
            )(hidden, vectors, bias, seen, is_item, boosts)
        np.testing.assert_array_equal(ranked.ranks, above.sum(1))
        np.testing.assert_array_equal(ranked.top, tokens)
        np.testing.assert_allclose(best[:, 0], np.where(is_item, scores, -9).max(1), rtol=1e-6)


def test_the_weights_are_searched_again_after_the_counts():
    best = Covisitation(0.75, 100.0, 0.4, 0.375)

    def ask(tried):
        if tried is None:
            return 0.1
        return 0.3 - sum(abs(v - asdict(best)[k]) / (1 + v) for k, v in asdict(tried).items()) / 99

    found = choose_covisitation(ask)
    assert found.chosen == best and found.best == pytest.approx(0.3)
    assert len(found.trials) == len({trial for trial, _ in found.trials}) <= 44
    nothing = choose_covisitation(lambda tried: 0.1)
    assert nothing.chosen is None and nothing.best == 0.1
    assert replace(best, **found.to_json("chosen")["chosen"]) == best


def test_the_search_keeps_within_what_settings_can_be():
    def ask(tried):  # the less popularity and the slower a decay, the better
        return 0.1 if tried is None else 0.2 + (tried.decay - tried.popularity) / 10

    trials = [tried for tried, _ in choose_covisitation(ask).trials]
    assert min(tried.popularity for tried in trials) == 0
    assert max(tried.decay for tried in trials) == 0.95


def test_what_lies_beyond_the_grids_is_climbed_to():
    """As on dense logs: much smoothing, a fast decay, all of the popularity."""
    best = {"decay": 0.225, "smoothing": 3200.0, "weight": 0.5, "popularity": 0.875, "relatives": 0}

    def ask(tried):
        if tried is None:
            return 0.1
        found = asdict(tried)
        steps = [np.log2(found[name] / best[name]) for name in ("decay", "smoothing", "weight")]
        return 0.3 - sum(map(abs, [*steps, found["popularity"] - best["popularity"]])) / 99

    found = choose_covisitation(ask)
    assert asdict(found.chosen) == pytest.approx(best)
    assert len(found.trials) == len({trial for trial, _ in found.trials}) <= 110
    assert min(trial.popularity for trial, _ in found.trials) == 0
    assert max(trial.decay for trial, _ in found.trials) <= 0.95


def test_the_search_finds_counts_that_are_worth_more_than_the_model():
    """There, more weight pays only with more of the popularity, and that only with more weight."""

    def ask(tried):
        if tried is None:
            return 0.1
        apart = tried.popularity - 0.5 - np.log2(tried.weight / 0.5) / 2
        return 0.2 + min(tried.popularity, 2) / 50 - abs(apart) / 5

    chosen = choose_covisitation(ask).chosen
    assert (chosen.weight, chosen.popularity) == (4, 2)


def test_relatives_are_searched_where_there_are_any():
    def ask(tried):  # alone, the counts are best at a strength of 0
        return 0.1 if tried is None else 0.2 - abs(tried.relatives - 6) / 100 - tried.weight / 1000

    without = choose_covisitation(ask)
    assert {tried.relatives for tried, _ in without.trials} == {0}
    found = choose_covisitation(ask, related=True)
    assert found.chosen.relatives == 6
    none = choose_covisitation(
        lambda tried: 0.2 - (tried.relatives if tried else 0.1), related=True
    )
    assert none.chosen.relatives == 0
    assert min(tried.relatives for tried, _ in none.trials) == 0


def test_the_search_finds_counts_that_are_surer():
    """There, more weight pays only with more smoothing, and that only with more weight."""

    def ask(tried):
        if tried is None:
            return 0.1
        apart = np.log2(tried.smoothing / 50) / 2 - np.log2(tried.weight / 0.5)
        return 0.2 + min(tried.smoothing, 800) / 1e5 - abs(apart) / 5

    chosen = choose_covisitation(ask).chosen
    assert (chosen.weight, chosen.smoothing) == (2, 800)
