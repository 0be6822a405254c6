"""Markov: transitions of five histories, worked by hand."""

import numpy as np
import pytest

from bert4rec_jax.evaluation.baselines import Popular, RecentPopular
from bert4rec_jax.evaluation.markov import Markov, transitions


def fit(letters, **settings):
    """Trained on abc, abd, acb, bd and a."""
    stop = letters.stop(3, 3, 3, 2, 1)
    chosen = {"distance": 1, "decay": 0.0, "smoothing": 0.0, **settings}
    return Markov.fit(letters.store, stop, prior=Popular.fit(letters.store, stop), **chosen)


def counts(letters, matrix, source):
    return letters.by_letter(matrix.toarray()[letters.token(source)], "abcde")


def test_neighbouring_pairs_count_one_forwards_only(five):
    matrix = transitions(five.store, five.stop(3, 3, 3, 2, 1), 1)
    assert counts(five, matrix, "a") == [0, 2, 1, 0, 0]
    assert counts(five, matrix, "b") == [0, 0, 1, 2, 0]
    assert counts(five, matrix, "c") == [0, 1, 0, 0, 0]
    assert counts(five, matrix, "d") == [0, 0, 0, 0, 0]
    assert matrix.sum() == 7


def test_a_pair_at_distance_two_counts_half(five):
    matrix = transitions(five.store, five.stop(3, 3, 3, 2, 1), 2)
    assert counts(five, matrix, "a") == [0, 2 + 1 / 2, 1 + 1 / 2, 1 / 2, 0]
    assert matrix.sum() == 7 + 3 / 2


def test_distances_beyond_the_longest_history_add_nothing(five):
    stop = five.store.offsets[1:]
    near, far = (transitions(five.store, stop, distance) for distance in (2, 50))
    assert (near.toarray() == far.toarray()).all()


def test_no_transition_crosses_from_one_user_to_the_next(write):
    letters = write(["a", "b", "c"])
    assert transitions(letters.store, letters.store.offsets[1:], 9).sum() == 0


def test_first_order_is_the_row_normalised_count(five):
    scores = fit(five).scores(five.case(4, 1), five.store)[0]
    assert five.by_letter(scores, "abcde") == pytest.approx([0, 2 / 3, 1 / 3, 0, 0])


def test_skip_gram_normalises_by_the_weighted_sum(five):
    scores = fit(five, distance=2).scores(five.case(4, 1), five.store)[0]
    expected = [0, 2.5 / 4.5, 1.5 / 4.5, 0.5 / 4.5, 0]
    assert five.by_letter(scores, "abcde") == pytest.approx(expected)


def test_earlier_items_count_less(five):
    # History a c: p(j | c) + p(j | a) / 2.
    scores = fit(five, decay=0.5).scores(five.case(2, 2), five.store)[0]
    assert five.by_letter(scores, "abcde") == pytest.approx([0, 1 + 2 / 6, 1 / 6, 0, 0])


def test_smoothing_mixes_in_popularity(five):
    # Popularity: a 4, b 4, c 2, d 2 of 12; a has 3 transitions.
    scores = fit(five, smoothing=2).scores(five.case(4, 1), five.store)[0]
    expected = [8 / 12 / 5, (2 + 8 / 12) / 5, (1 + 4 / 12) / 5, 4 / 12 / 5, 0]
    assert five.by_letter(scores, "abcde") == pytest.approx(expected)
    assert scores.sum() == pytest.approx(1)


def test_an_item_that_nothing_followed_falls_back_to_popularity(five):
    # The history of this question ends with d.
    case = five.case(1, 2)
    after = type(case)(case.users, case.rows + 1, {})
    assert not fit(five).scores(after, five.store).any()
    scores = fit(five, smoothing=2).scores(after, five.store)[0]
    assert five.by_letter(scores, "abcde") == pytest.approx([4 / 12, 4 / 12, 2 / 12, 2 / 12, 0])


def test_the_prior_can_be_a_recent_popularity(write):
    day = 86_400
    letters = write(["ab", "cd", "da"], times=[[0, day], [8 * day, 9 * day], [9 * day, 10 * day]])
    stop = letters.stop(2, 2, 1)
    prior = RecentPopular.fit(letters.store, stop, days=7, until="end of training")
    model = Markov.fit(letters.store, stop, distance=1, decay=0, smoothing=1, prior=prior)
    # In the window: c 1, d 2; of all five: a 1, b 1, c 1, d 2; d has no transition.
    scores = model.scores(letters.case(2, 1), letters.store)[0]
    expected = np.array([1 / 5, 1 / 5, 1 + 1 / 5, 2 + 2 / 5]) / 4
    assert letters.by_letter(scores, "abcd") == pytest.approx(expected)
    assert model.name == "markov-1-recent"
    assert model.settings == {
        "distance": 1,
        "decay": 0,
        "smoothing": 1,
        "prior-days": 7,
        "prior-until": "end of training",
    }


def test_names(five):
    assert fit(five).name == "markov-1"
    assert fit(five, distance=9).name == "skip-gram-markov"


def test_impossible_settings_are_errors(five):
    with pytest.raises(ValueError, match="distance is 0; a transition spans at least 1 item"):
        fit(five, distance=0)
    with pytest.raises(ValueError, match=r"smoothing is -1; expected at least 0"):
        fit(five, smoothing=-1)
