"""Tuning: selection sees validation only; the anchors on MovieTweetings are reached."""

from dataclasses import dataclass

import numpy as np
import pytest
from reference import rank_baseline

from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.data.split import Cases, global_time, leave_one_out
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation import search
from bert4rec_jax.evaluation.baselines import Popular, RecentPopular
from bert4rec_jax.evaluation.markov import Markov
from bert4rec_jax.evaluation.metrics import known, summary
from bert4rec_jax.evaluation.tuning import GRIDS, NEEDS_TIME, tune, tune_all


@dataclass(frozen=True)
class Fixed:
    """A baseline that says which ranks it will get."""

    rank: int
    refitted: bool = False
    name: str = "fixed"

    @property
    def settings(self):
        return {"rank": self.rank}

    def refit(self, store, stop):
        return Fixed(self.rank, refitted=True)

    def scores(self, cases, store):
        raise AssertionError("tuning ranks through the function it is given, and only so")


def constant(baseline, cases):
    return np.full(len(cases), baseline.rank)


def test_the_best_on_validation_is_chosen_and_the_earlier_of_equals(store):
    split = leave_one_out(store)
    candidates = [Fixed(11), Fixed(2, name="first"), Fixed(5), Fixed(2, name="second")]
    found = tune(candidates, store=store, split=split, rank=constant)
    assert found.baseline.name == "first"
    assert found.chosen.ndcg == pytest.approx(1 / np.log2(3))
    assert [trial.settings["rank"] for trial in found.trials] == [11, 2, 5, 2]
    assert found.trials[0].ndcg == 0


def test_a_baseline_that_changes_while_it_is_tuned_is_refused(store):
    """Else the one of the last settings would be tested as that of the best."""

    def grid():
        found = Fixed(2)
        for rank in (2, 5):
            object.__setattr__(found, "rank", rank)
            yield found

    with pytest.raises(UserError, match="grid of baseline 'fixed' yields the same object twice"):
        tune(grid(), store=store, split=leave_one_out(store), rank=constant)


def test_settings_of_numpy_are_plain_however_deep(store):
    split = leave_one_out(store)
    candidates = [Fixed(np.int64(2)), Fixed({"of": [np.float32(0.5)], "by": np.arange(2)})]
    found = tune(
        candidates, store=store, split=split, rank=lambda _, cases: np.ones(len(cases), int)
    )
    plain = [{"rank": 2}, {"rank": {"of": [0.5], "by": [0, 1]}}]
    assert [trial.settings for trial in found.trials] == plain
    assert type(found.chosen.settings["rank"]) is int


def test_only_validation_cases_are_ranked(store):
    split = global_time(store)
    asked = []

    def rank(baseline, cases):
        asked.append(cases)
        return constant(baseline, cases)

    tune([Fixed(1), Fixed(2)], store=store, split=split, rank=rank)
    assert all(cases is split.validation for cases in asked)
    assert len(asked) == 2


def test_the_chosen_is_refitted_only_where_the_split_does(store):
    for split, refitted in ((leave_one_out(store), False), (global_time(store), True)):
        found = tune([Fixed(1)], store=store, split=split, rank=constant)
        assert found.baseline.refitted == refitted


def test_an_empty_grid_is_an_error(store):
    with pytest.raises(ValueError, match="no candidate to choose from"):
        tune([], store=store, split=leave_one_out(store), rank=constant)


@pytest.mark.parametrize("split_of", [leave_one_out, global_time])
def test_every_grid_is_fitted_on_training_and_delivered_for_the_test(store, split_of):
    split = split_of(store)
    found = tune_all(store, split, lambda b, cases: rank_baseline(b, cases, store))
    assert list(found) == list(GRIDS)
    for name, tuned in found.items():
        assert tuned.baseline.name == name
        assert tuned.baseline.settings == tuned.chosen.settings
        assert tuned.chosen.ndcg == max(trial.ndcg for trial in tuned.trials)
        again = tuned.baseline.refit(store, split.refit_stop)
        cases = split.test["test"]
        np.testing.assert_array_equal(
            again.scores(cases, store), tuned.baseline.scores(cases, store)
        )
    walk = summary(rank_baseline(found["markov-1"].baseline, split.test["test"], store))
    popular = summary(rank_baseline(found["popular"].baseline, split.test["test"], store))
    assert walk["ndcg@10"] > popular["ndcg@10"]


def test_candidates_have_seen_nothing_after_the_selection_split(store):
    split = global_time(store)

    def rank(candidate, cases):
        fair = candidate.refit(store, split.train_stop)
        np.testing.assert_array_equal(candidate.scores(cases, store), fair.scores(cases, store))
        return np.ones(len(cases), int)

    assert split.refits
    assert len(tune_all(store, split, rank)) == len(GRIDS)


def test_without_timestamps_what_needs_them_is_left_out(five):
    def rank(baseline, cases):
        return rank_baseline(baseline, cases, five.store)

    split = leave_one_out(five.store)
    assert set(GRIDS) - set(tune_all(five.store, split, rank)) == set(NEEDS_TIME)
    with pytest.raises(UserError, match="'recent-popular' needs timestamps"):
        tune_all(five.store, split, rank, names=["recent-popular"])


def test_an_unknown_name_is_an_error_that_lists_the_known(store):
    with pytest.raises(UserError, match=r"'knn' is unknown; choose from popular, .*item-knn"):
        tune_all(store, leave_one_out(store), constant, names=["knn"])


@pytest.fixture(scope="module")
def movietweetings(tmp_path_factory):
    return prepare("movietweetings", tmp_path_factory.mktemp("data") / "store").store


def test_skip_gram_markov_reaches_its_anchor(movietweetings):
    store, split = movietweetings, leave_one_out(movietweetings)
    popular = Popular.fit(store, split.train_stop)
    model = Markov.fit(store, split.train_stop, distance=9, decay=0.6, smoothing=0, prior=popular)
    found = summary(rank_baseline(model, split.test["test"], store))
    assert (found["hr@10"], found["ndcg@10"]) == pytest.approx((0.212, 0.123), abs=0.001)


def test_recent_popularity_reaches_its_anchor(movietweetings):
    store, split = movietweetings, global_time(movietweetings)
    model = RecentPopular.fit(store, split.refit_stop, days=14, until="end of training")
    cases = split.test["test"]
    cases = cases[known(cases, store, split.refit_stop)]
    found = summary(rank_baseline(model, cases, store))
    assert (found["hr@10"], found["ndcg@10"]) == pytest.approx((0.189, 0.127), abs=0.001)


def test_settings_are_chosen_on_a_sample_where_ranking_all_takes_long(store, monkeypatch):
    split = leave_one_out(store)
    everyone = len(split.validation)
    monkeypatch.setattr(search, "MOST_CASES", everyone // 2)
    asked = []

    def rank(baseline, cases):
        asked.append(cases)
        return np.where(np.isin(cases.users, sampled.users), 1, 11)  # only these are found

    sampled = search.choosing(split.validation, len(store.catalog))
    again = search.choosing(split.validation, len(store.catalog))
    np.testing.assert_array_equal(sampled.users, again.users)
    assert len(set(sampled.users)) == everyone // 2
    assert sampled.users.max() > split.validation.users[everyone // 2]  # not only of the first half
    found = tune([Fixed(1), Fixed(2)], store=store, split=split, rank=rank)
    assert [len(cases) for cases in asked] == [everyone // 2] * 2 + [everyone]
    assert [trial.ndcg for trial in found.trials] == [1, 1]
    assert found.chosen.ndcg == pytest.approx((everyone // 2) / everyone)


@pytest.mark.parametrize(
    ("cases", "items", "expected"),
    [(10_000, 100, 10_000), (10_001, 100, 10_000), (9_000, 50_000, 5_000), (9_000, 10**6, 2_000),
     (1_500, 10**6, 1_500)],
)  # fmt: skip
def test_how_many_cases_settings_are_chosen_on(cases, items, expected):
    rows = np.arange(cases)
    assert len(search.choosing(Cases(rows, rows, {}), items)) == expected
