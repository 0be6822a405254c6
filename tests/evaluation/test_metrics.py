"""Metrics: fractions worked by hand, an independent library, and named edge cases."""

import math

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from bert4rec_jax.data.split import global_time, leave_one_out
from bert4rec_jax.evaluation.metrics import (
    CUTOFFS,
    POPULARITY,
    by_popularity,
    cold_exposure,
    contributions,
    coverage,
    known,
    novelty,
    popularity_groups,
    summary,
)

RANKS = np.array([1, 3, 10, 11, 201])


def test_summary_of_five_ranks_by_hand():
    found = summary(RANKS)
    assert found["hr@1"] == 1 / 5
    assert found["hr@5"] == 2 / 5
    assert found["hr@10"] == 3 / 5
    assert found["hr@50"] == found["hr@200"] == 4 / 5
    assert found["ndcg@5"] == pytest.approx((1 + 1 / math.log2(4)) / 5)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / 2 + 1 / math.log2(11)) / 5)
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 10 + 1 / 11 + 1 / 201) / 5)


def test_keys_name_every_metric_and_cutoff():
    names = [f"{metric}@{k}" for metric in ("hr", "ndcg") for k in (1, 5, 10, 50, 100, 200)]
    assert list(summary(RANKS)) == [*names, "mrr"]


def test_rank_one_gains_everything():
    assert set(summary(np.array([1])).values()) == {1.0}


def test_rank_beyond_every_cutoff_still_has_a_reciprocal():
    found = summary(np.array([1000]))
    assert found.pop("mrr") == 1 / 1000
    assert set(found.values()) == {0.0}


def test_rank_at_the_cutoff_counts_and_one_further_does_not():
    for k in CUTOFFS:
        assert list(contributions(np.array([k, k + 1]))[f"hr@{k}"]) == [1, 0]
        assert contributions(np.array([k, k + 1]))[f"ndcg@{k}"][0] == 1 / math.log2(k + 1)


def test_small_integer_types_do_not_overflow():
    assert summary(RANKS.astype(np.uint8)[:4]) == summary(RANKS[:4])
    assert summary(RANKS.astype(np.int32)) == summary(RANKS)


def test_summary_is_the_mean_of_contributions():
    each = contributions(RANKS)
    assert all(len(values) == len(RANKS) for values in each.values())
    assert summary(RANKS) == {name: values.mean() for name, values in each.items()}


def test_no_case_is_an_error():
    with pytest.raises(ValueError, match="no case to average"):
        summary(np.array([], np.int64))


def test_rank_zero_is_an_error():
    with pytest.raises(ValueError, match="ranks start from 1; the lowest is 0"):
        summary(np.array([1, 0]))


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    scores = rng.permuted(np.tile(np.arange(300.0), (40, 1)), axis=1)
    targets = rng.integers(0, 300, 40)
    relevant = np.eye(300)[targets]
    ranks = 1 + (scores > scores[np.arange(40), targets][:, None]).sum(1)
    found = summary(ranks)
    for k in CUTOFFS[1:]:
        assert found[f"ndcg@{k}"] == pytest.approx(ndcg_score(relevant, scores, k=k))
    assert found["mrr"] == pytest.approx(label_ranking_average_precision_score(relevant, scores))


def test_coverage_counts_distinct_items_and_no_padding():
    top = np.array([[2, 3, 4], [2, 3, 0]])
    assert coverage(top, num_items=12) == 3 / 12


def test_novelty_by_hand():
    counts = np.array([0, 0, 5, 0, 1])  # items 2, 3, 4 of three
    top = np.array([[2, 3], [4, 0]])
    shares = [6 / 9, 1 / 9, 2 / 9]
    assert novelty(top, counts, 3) == pytest.approx(-sum(map(math.log2, shares)) / 3)


def test_novelty_of_an_unseen_item_is_finite_and_the_highest():
    counts = np.array([0, 0, 9, 0])
    unseen, popular = (novelty(np.array([[token]]), counts, 2) for token in (3, 2))
    assert unseen == math.log2(11)
    assert popular < unseen


def test_novelty_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no item is recommended in 2 lists"):
        novelty(np.zeros((2, 10), int), np.ones(5, int), 3)


def names_of(counts):
    return [POPULARITY[group] for group in popularity_groups(np.array(counts))]


def test_groups_hold_thirds_of_the_interactions():
    # 30 interactions: the first ten belong to one item, the next to two, the rest to ten.
    assert names_of([0, 10, 5, 5, *[1] * 10]) == ["cold", "head", *["middle"] * 2, *["tail"] * 10]


def test_an_item_that_begins_within_a_third_belongs_to_it():
    assert names_of([9, 1]) == ["head", "tail"]
    assert names_of([2, 2, 2]) == ["head"] * 3


def test_equally_popular_items_share_a_group_in_any_order():
    counts = np.random.default_rng(0).geometric(0.1, 200) - 1
    order = np.random.default_rng(1).permutation(200)
    groups = popularity_groups(counts)
    assert (popularity_groups(counts[order]) == groups[order]).all()
    assert all(len(set(groups[counts == count])) == 1 for count in set(counts))


def test_all_cold_without_training():
    assert names_of([0, 0]) == ["cold", "cold"]


def test_by_popularity_splits_the_cases():
    counts = np.array([0, 0, 9, 1, 0])
    report = by_popularity(np.array([1, 2, 4]), np.array([2, 3, 3]), counts)
    assert {name: group["cases"] for name, group in report.items()} == {
        "cold": 0,
        "tail": 2,
        "middle": 0,
        "head": 1,
    }
    assert report["head"]["mrr"] == 1
    assert report["tail"]["mrr"] == (1 / 2 + 1 / 4) / 2
    assert set(report["cold"]) == {"cases"}


def test_known_needs_the_user_and_the_target_in_training(write):
    letters = write(["ab", "ba", "ac", "ab"])
    stop = letters.stop(1, 1, 1, 0)
    answers = [known(letters.case(user, 1), letters.store, stop)[0] for user in range(4)]
    assert answers == [True, True, False, False]


def test_known_is_everyone_in_a_dense_log(store):
    for split in (leave_one_out(store), global_time(store)):
        assert known(split.validation, store, store.offsets[1:]).all()


def test_cold_exposure_by_hand():
    counts = np.array([0, 0, 5, 0, 1, 0])
    top = np.array([[2, 3], [4, 0], [5, 2]])  # of five places two hold items 3 and 5
    assert cold_exposure(top, counts) == 2 / 5
    assert cold_exposure(np.zeros((2, 2), int), counts) == 0
