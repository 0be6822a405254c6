"""Assessment: figures of several models over the same cases."""

import numpy as np
import pytest

from bert4rec_jax.data.split import Cases, leave_one_out, train_counts
from bert4rec_jax.data.store import write_arranged
from bert4rec_jax.evaluation.assessment import assess
from bert4rec_jax.evaluation.bootstrap import intervals
from bert4rec_jax.evaluation.evaluator import Ranking


def ranking(ranks):
    return Ranking(np.array(ranks), np.full((len(ranks), 10), 2, np.int32))


def assessed(store, cases, **ranks):
    counts = train_counts(store, leave_one_out(store).train_stop)
    rankings = {name: ranking(found) for name, found in ranks.items()}
    return assess(rankings, cases, store, counts=counts, resamples=100)


def test_the_lead_is_told_with_its_mean(store):
    cases = leave_one_out(store).test["test"][:4]
    model, other = assessed(store, cases, model=[1, 2, 11, 1], other=[2, 2, 1, 20])
    found = other.to_json()
    assert found["lead"]["hr@10"] == 0  # the third target is lost, the fourth found
    assert found["lead"]["mrr"] == pytest.approx((0.5 + 0 - 10 / 11 + 0.95) / 4, abs=1e-6)
    low, high = found["lead_interval_95"]["mrr"]
    assert low <= found["lead"]["mrr"] <= high
    assert model.to_json()["lead"] == model.to_json()["lead_interval_95"] == {}


def test_a_user_with_two_questions_is_drawn_with_both(five, tmp_path):
    """Where items are held out, each question has a history of its own, with its user's id."""
    rows, offsets = np.array([0, 1, 2, 3, 4, 5] * 2), np.array([0, 3, 6, 9, 12])
    users = np.array([0, 1, 0, 1])
    store = write_arranged(
        five.store, tmp_path / "arranged", rows=rows, offsets=offsets, users=users, source={}
    )
    cases = Cases(np.arange(4), offsets[1:] - 1, {})
    (found,) = assessed(store, cases, model=[1, 50, 1, 50])
    two = intervals({"hr@10": np.array([1.0, 0.0])}, rng=np.random.default_rng(0), resamples=100)
    assert found.intervals["hr@10"] == two["hr@10"]


def test_where_no_target_has_a_training_event_the_target_items_are_drawn(store):
    """Three cases of one new item and one of another: two items to draw, not four users."""
    cases = leave_one_out(store).test["test"]
    tokens = store.tokens[cases.rows]
    often = np.bincount(tokens).argmax()
    chosen = [*np.flatnonzero(tokens == often)[:3], *np.flatnonzero(tokens != often)[:1]]
    cases = cases[np.array(chosen)]
    counts = np.ones(store.catalog.num_rows, np.int64)
    answers = {"model": ranking([1, 1, 1, 50])}
    (by_users,) = assess(answers, cases, store, counts=counts, resamples=100)
    counts[store.tokens[cases.rows]] = 0
    (by_items,) = assess(answers, cases, store, counts=counts, resamples=100)
    assert (by_users.drawn, by_items.drawn) == ("users", "items")
    assert by_items.to_json()["interval_over"] == "items"
    interval = by_items.intervals["hr@10"]
    assert (interval.mean, interval.low, interval.high) == (0.75, 0.0, 1.0)
    assert by_users.intervals["hr@10"].low > 0


def test_a_single_target_item_cannot_be_drawn(store):
    cases = leave_one_out(store).test["test"]
    tokens = store.tokens[cases.rows]
    cases = cases[np.flatnonzero(tokens == np.bincount(tokens).argmax())[:3]]
    counts = np.zeros(store.catalog.num_rows, np.int64)
    answers = {"model": ranking([1, 1, 50][: len(cases)])}
    (found,) = assess(answers, cases, store, counts=counts, resamples=100)
    assert found.drawn == "users"
