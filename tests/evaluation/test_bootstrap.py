"""Bootstrap: the textbook loop, exactness of paired differences, coverage."""

from dataclasses import astuple

import numpy as np
import pytest

from bert4rec_jax.evaluation import bootstrap
from bert4rec_jax.evaluation.bootstrap import Interval, beside_first, differences, intervals


def rng():
    return np.random.default_rng(0)


def test_equals_the_textbook_loop():
    values = np.array([0.0, 1.0, 0.25, 0.5, 0.0])
    drawn = rng().integers(0, 5, (1000, 5))
    means = [sum(values[i] for i in users) / 5 for users in drawn]
    found = intervals({"ndcg@10": values}, rng=rng())["ndcg@10"]
    assert found.mean == values.mean()
    assert found.low == pytest.approx(np.percentile(means, 2.5))
    assert found.high == pytest.approx(np.percentile(means, 97.5))


def test_the_memory_bound_changes_nothing(monkeypatch):
    values = {"mrr": rng().random(97)}
    whole = intervals(values, rng=rng())["mrr"]
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 500)
    assert astuple(intervals(values, rng=rng())["mrr"]) == pytest.approx(astuple(whole), rel=1e-12)


def test_same_seed_same_interval_and_another_seed_another():
    values = {"mrr": rng().random(50)}
    assert intervals(values, rng=rng()) == intervals(values, rng=rng())
    assert intervals(values, rng=np.random.default_rng(1)) != intervals(values, rng=rng())


def test_columns_see_the_same_resamples():
    values = rng().random(50)
    found = intervals({"a": values, "twice": 2 * values, "alone": values}, rng=rng())
    assert found["a"] == found["alone"]
    assert found["twice"].high == pytest.approx(2 * found["a"].high)
    by_itself = intervals({"a": values}, rng=rng())["a"]
    assert astuple(by_itself) == pytest.approx(astuple(found["a"]), rel=1e-12)


def test_one_user_has_no_spread():
    assert intervals({"mrr": np.array([0.25])}, rng=rng()) == {"mrr": Interval(0.25, 0.25, 0.25)}


def test_a_higher_level_is_wider():
    values = {"mrr": rng().random(50)}
    narrow, wide = (intervals(values, rng=rng(), level=level)["mrr"] for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_identical_models_differ_by_exactly_nothing():
    values = {"mrr": rng().random(50), "hr@10": (rng().random(50) > 0.5).astype(float)}
    found = differences(values, dict(values), rng=rng())
    assert set(found.values()) == {Interval(0.0, 0.0, 0.0)}


def test_a_constant_gain_is_certain_however_the_users_spread():
    easy = rng().integers(0, 2, 50).astype(float)
    found = differences({"hr@10": easy + 0.125}, {"hr@10": easy}, rng=rng())["hr@10"]
    assert found == Interval(0.125, 0.125, 0.125)


def test_difference_is_the_difference_of_the_same_resamples():
    a, b = rng().random((2, 40))
    tables = [x[:, None] for x in (a, b)]
    resampled = bootstrap.resampled_means(tables, rng=rng(), resamples=1000)
    found = differences({"mrr": a}, {"mrr": b}, rng=rng())["mrr"]
    low, high = np.quantile(resampled[0] - resampled[1], [0.025, 0.975])
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)


@pytest.mark.parametrize("values_at_once", [1, 100, 1 << 25])
@pytest.mark.parametrize("users", [None, [n // 2 for n in range(40)]])
def test_models_drawn_together_are_as_each_by_itself(monkeypatch, values_at_once, users):
    monkeypatch.setattr(bootstrap, "_VALUES_AT_ONCE", values_at_once)
    models = [{"mrr": x, "hr@10": np.round(x)} for x in rng().random((4, 40))]
    found = beside_first(iter(models), rng=rng(), users=users)
    assert [own for own, _ in found] == [intervals(x, rng=rng(), users=users) for x in models]
    assert found[0].lead == {}
    for model, (_, lead) in zip(models[1:], found[1:]):
        assert lead == differences(models[0], model, rng=rng(), users=users)


def test_nothing_to_compare():
    assert beside_first([], rng=rng()) == []


def test_the_interval_covers_the_truth_about_95_times_in_100():
    samples = np.random.default_rng(7).exponential(1.0, (400, 150))
    covered = 0
    for values in samples:
        found = intervals({"x": values}, rng=rng(), resamples=400)["x"]
        covered += found.low <= 1.0 <= found.high
    assert 0.91 <= covered / 400 <= 0.97


def test_a_user_is_drawn_with_all_questions():
    """Ann has 1 and 0, Bob 0.5, Cid 1, 1 and 0: a mean is over the questions of who is drawn."""
    values = np.array([1.0, 0.5, 0.0, 1.0, 1.0, 0.0])
    users = ["Ann", "Bob", "Ann", "Cid", "Cid", "Cid"]
    sums, questions = {0: 1.0, 1: 0.5, 2: 2.0}, {0: 2, 1: 1, 2: 3}
    drawn = rng().integers(0, 3, (1000, 3))
    means = [sum(sums[u] for u in row) / sum(questions[u] for u in row) for row in drawn]
    found = intervals({"mrr": values}, rng=rng(), users=users)["mrr"]
    assert found.mean == pytest.approx(3.5 / 6)
    assert found.low == pytest.approx(np.percentile(means, 2.5))
    assert found.high == pytest.approx(np.percentile(means, 97.5))
    assert differences({"mrr": values}, {"mrr": 0 * values}, rng=rng(), users=users)["mrr"] == found


def test_copies_of_a_question_make_nothing_more_certain():
    values = rng().random(40)
    once = intervals({"mrr": values}, rng=rng())["mrr"]
    copied = intervals({"mrr": np.repeat(values, 3)}, rng=rng(), users=np.arange(40).repeat(3))
    assert astuple(copied["mrr"]) == pytest.approx(astuple(once))


def test_one_question_each_changes_no_draw():
    values = {"mrr": rng().random(40)}
    named = intervals(values, rng=rng(), users=[f"user {40 - n}" for n in range(40)])
    assert astuple(named["mrr"]) == pytest.approx(astuple(intervals(values, rng=rng())["mrr"]))


def test_users_of_other_questions_are_an_error():
    with pytest.raises(ValueError, match="2 users for 3 cases"):
        intervals({"mrr": np.ones(3)}, rng=rng(), users=["a", "b"])


def test_no_user_is_an_error():
    for values in ({}, {"mrr": np.array([])}):
        with pytest.raises(ValueError, match="no user to draw"):
            intervals(values, rng=rng())


def test_columns_over_different_users_are_an_error():
    with pytest.raises(ValueError, match=r"their lengths are \[1, 2\]"):
        intervals({"a": np.ones(2), "b": np.ones(1)}, rng=rng())


def test_differences_need_the_same_metrics_and_users():
    with pytest.raises(ValueError, match=r"metrics differ: \['mrr'\] against \['hr@10'\]"):
        differences({"mrr": np.ones(2)}, {"hr@10": np.ones(2)}, rng=rng())
    with pytest.raises(ValueError, match="mrr is over 2 users and 1"):
        differences({"mrr": np.ones(2)}, {"mrr": np.ones(1)}, rng=rng())


class Labelled:
    """As a series of pandas with labels of its own: a difference is taken label by label."""

    def __init__(self, values, labels):
        self.values, self.labels = np.array(values), np.array(labels)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)

    def __sub__(self, other):
        return self.values[np.argsort(self.labels)] - other.values[np.argsort(other.labels)]


def test_differences_are_by_the_order_of_cases_whatever_their_labels():
    values, baseline = Labelled([1.0, 0.0], labels=[1, 0]), Labelled([1.0, 0.0], labels=[0, 1])
    same = differences({"mrr": values}, {"mrr": baseline}, rng=rng())
    assert same["mrr"] == Interval(0, 0, 0)
    (_, (_, lead)) = beside_first([{"mrr": values}, {"mrr": baseline}], rng=rng())
    assert lead["mrr"] == Interval(0, 0, 0)
