"""Baselines: laws that all of them keep, and the two popularities by hand."""

import numpy as np
import pytest

from bert4rec_jax.data.split import global_time, leave_one_out
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.baselines import Popular, RecentPopular
from bert4rec_jax.evaluation.item_knn import ItemKNN
from bert4rec_jax.evaluation.markov import Markov

DAY = 86_400


def _recent(store, stop, until):
    return RecentPopular.fit(store, stop, days=1, until=until)


FITS = {
    "popular": Popular.fit,
    "recent": lambda store, stop: _recent(store, stop, "end of training"),
    "recent, by user": lambda store, stop: _recent(store, stop, "last event"),
    "markov-1": lambda store, stop: Markov.fit(
        store, stop, distance=1, decay=0, smoothing=0, prior=Popular.fit(store, stop)
    ),
    "skip-gram": lambda store, stop: Markov.fit(
        store, stop, distance=9, decay=0.7, smoothing=5, prior=Popular.fit(store, stop)
    ),
    "skip-gram, recent": lambda store, stop: Markov.fit(
        store,
        stop,
        distance=9,
        decay=0.7,
        smoothing=5,
        prior=_recent(store, stop, "last event"),
    ),
    "item-knn": lambda store, stop: ItemKNN.fit(store, stop, neighbours=5, shrinkage=1, decay=0.7),
}
every_baseline = pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
both_splits = pytest.mark.parametrize("split_of", [leave_one_out, global_time])


def altered(store: SequenceStore, rows) -> SequenceStore:
    """The same store with other items, at other times, in the given rows."""
    other = SequenceStore(store.path, store.manifest)
    rng = np.random.default_rng(3)
    tokens, times = np.array(store.tokens), np.array(store.timestamps)
    tokens[rows] = rng.integers(2, store.catalog.num_tokens, len(rows))
    times[rows] += rng.integers(1, 10 * DAY, len(rows))
    other.__dict__.update(tokens=tokens, timestamps=times)
    return other


def rows_from(store, stop):
    return np.concatenate([np.arange(*ends) for ends in zip(stop, store.offsets[1:])])


@every_baseline
@both_splits
def test_what_comes_at_or_after_stop_does_not_change_a_fit(store, fit, split_of):
    split = split_of(store)
    for stop in (split.train_stop, split.refit_stop):
        other = altered(store, rows_from(store, stop))
        assert (other.tokens != store.tokens).any()
        cases = split.validation
        np.testing.assert_array_equal(
            fit(store, stop).scores(cases, store), fit(other, stop).scores(cases, store)
        )


@every_baseline
@both_splits
def test_the_target_and_what_follows_it_do_not_change_its_scores(store, fit, split_of):
    split = split_of(store)
    fitted = fit(store, split.train_stop)
    for cases in (split.validation, *split.test.values()):
        after = np.array(store.offsets[1:])
        after[cases.users] = cases.rows
        other = altered(store, rows_from(store, after))
        np.testing.assert_array_equal(fitted.scores(cases, store), fitted.scores(cases, other))


@every_baseline
def test_the_history_does_change_the_scores_where_it_is_used(store, fit):
    split = leave_one_out(store)
    fitted = fit(store, split.train_stop)
    other = altered(store, split.validation.rows - 1)
    changed = (
        fitted.scores(split.validation, store) != fitted.scores(split.validation, other)
    ).any()
    same_for_all = fitted.name == "popular" or fitted.settings.get("until") == "end of training"
    assert changed == (not same_for_all)


@every_baseline
@both_splits
def test_scores_are_finite_float32_over_the_whole_table(store, fit, split_of):
    split = split_of(store)
    for cases in (split.validation, split.validation[:0]):
        scores = fit(store, split.train_stop).scores(cases, store)
        assert scores.shape == (len(cases), store.catalog.num_rows)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()


@every_baseline
def test_blocks_do_not_change_scores(store, fit):
    split = leave_one_out(store)
    fitted, cases = fit(store, split.train_stop), split.validation
    whole = fitted.scores(cases, store)
    order = np.random.default_rng(0).permutation(len(cases))
    for part in np.array_split(order, 7):
        np.testing.assert_array_equal(fitted.scores(cases[part], store), whole[part])


@every_baseline
def test_fitting_twice_or_refitting_gives_the_same(store, fit):
    split = global_time(store)
    early, late = fit(store, split.train_stop), fit(store, split.refit_stop)
    cases = split.test["test"]
    refitted = early.refit(store, split.refit_stop)
    assert refitted.settings == late.settings == early.settings
    assert refitted.name == late.name
    np.testing.assert_array_equal(refitted.scores(cases, store), late.scores(cases, store))
    assert (early.scores(cases, store) != late.scores(cases, store)).any()


def test_popular_counts_training_rows(five):
    fitted = Popular.fit(five.store, five.stop(3, 3, 3, 2, 1))
    scores = fitted.scores(five.case(4, 1), five.store)
    assert five.by_letter(scores[0], "abcde") == [4, 4, 2, 2, 0]
    assert scores.sum() == 12


def timed(write):
    """Days on which three users watched; the fourth is asked on day 7 what comes on day 20."""
    days = [[0, 1, 5], [2, 5], [4, 6], [3, 7, 20]]
    times = [[day * DAY for day in row] for row in days]
    return write(["aab", "ba", "cb", "adc"], times=times)


def test_recent_popular_counts_a_window_before_the_end_of_training(write):
    letters = timed(write)
    fitted = RecentPopular.fit(
        letters.store, letters.stop(3, 2, 2, 2), days=2, until="end of training"
    )
    # Training ends on day 7, so the window holds day 6 (b) and day 7 (d), and not day 5.
    scores = fitted.scores(letters.case(3, 2), letters.store)[0]
    share = np.array([4, 3, 1, 1]) / 9
    assert letters.by_letter(scores, "abcd") == pytest.approx(np.add(share, [0, 1, 0, 1]))


def test_recent_popular_counts_a_window_before_the_users_last_event(write):
    letters = timed(write)
    fitted = RecentPopular.fit(letters.store, letters.stop(3, 2, 2, 2), days=2, until="last event")
    share = np.array([4, 3, 1, 1]) / 9
    # The history of user 3 before its second row ends on day 3: days 2 (b) and 3 (a).
    early = fitted.scores(letters.case(3, 1), letters.store)[0]
    assert letters.by_letter(early, "abcd") == pytest.approx(np.add(share, [1, 1, 0, 0]))
    # User 0 before its last row: day 1 (a); day 0 (a) is within two days, too.
    first = fitted.scores(letters.case(0, 2), letters.store)[0]
    assert letters.by_letter(first, "abcd") == pytest.approx(np.add(share, [2, 0, 0, 0]))


def test_a_last_event_after_training_ends_the_window_with_training(write):
    letters = timed(write)
    fitted = RecentPopular.fit(letters.store, letters.stop(3, 2, 2, 1), days=2, until="last event")
    # The last event of user 3 is on day 7, training ends on day 6: days 5 (a, b) and 6 (b).
    scores = fitted.scores(letters.case(3, 2), letters.store)[0]
    assert [int(score) for score in letters.by_letter(scores, "abc")] == [1, 2, 0]


def test_recent_popular_counts_a_window_before_the_request(write):
    letters = timed(write)
    fitted = RecentPopular.fit(letters.store, letters.stop(3, 2, 2, 2), days=2, until="request")
    assert fitted.name == "recent-popular-at-request"
    share = np.array([4, 3, 1, 1]) / 9
    # User 0 is asked on day 5: day 3 (a) and day 4 (c), and nothing of that very second.
    asked = fitted.scores(letters.case(0, 2), letters.store)[0]
    assert letters.by_letter(asked, "abcd") == pytest.approx(np.add(share, [1, 0, 1, 0]))


def test_recent_popular_needs_timestamps(five):
    with pytest.raises(UserError, match="needs timestamps, and this log has none"):
        RecentPopular.fit(five.store, five.store.offsets[1:], days=7, until="last event")


def test_a_window_is_at_least_one_day(write):
    letters = timed(write)
    with pytest.raises(ValueError, match="days is 0; a window is at least one day"):
        RecentPopular.fit(letters.store, letters.store.offsets[1:], days=0, until="last event")


def test_settings_name_the_choices(write):
    letters = timed(write)
    fitted = RecentPopular.fit(letters.store, letters.stop(3, 2, 2, 2), days=2, until="last event")
    assert fitted.settings == {"days": 2, "until": "last event"}
    assert Popular.fit(letters.store, letters.store.offsets[1:]).settings == {}
