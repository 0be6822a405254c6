"""Assessment: figures of several models over the same cases."""

import numpy as np

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
