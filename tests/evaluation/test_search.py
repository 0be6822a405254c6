"""Search: rounds around the best so far, then steps as long as they gain."""

import pytest

from bert4rec_jax.evaluation import search as searching
from bert4rec_jax.evaluation.search import search


def peak(at):
    """NDCG that is highest at a whole number; -1 without a correction."""
    asked = []

    def ask(tried):
        asked.append(tried)
        return -1.0 if tried is None else -abs(tried - at) / 100

    return ask, asked


def beside(number):
    return [number - 1, number + 1]


def test_each_round_begins_at_the_best_so_far_and_asks_nothing_twice():
    ask, asked = peak(at=7)
    found = search(0, ask, lambda n: [n, n + 5, n + 10], lambda n: [n, n + 2])
    assert asked == [0, 5, 10, 7, None]
    assert found.chosen == 7 and found.best == 0 and found.without == -1


def test_steps_go_on_as_long_as_they_gain(monkeypatch):
    ask, asked = peak(at=9)
    found = search(0, ask, lambda n: [5], neighbours=beside)
    assert found.chosen == 9 and asked == [5, 4, 6, 7, 8, 9, 10, None]
    monkeypatch.setattr(searching, "CLIMBS", 2)
    assert search(0, peak(at=9)[0], lambda n: [5], neighbours=beside).chosen == 7


@pytest.mark.parametrize("neighbours", [None, beside])
def test_where_nothing_gains_nothing_is_chosen_and_of_equals_the_earlier_wins(neighbours):
    nothing = search(0, lambda tried: 0.5, lambda n: [3, 4], neighbours=neighbours)
    assert nothing.chosen is None and nothing.best == 0.5
    equal = search(0, lambda tried: 0.1 if tried is None else 0.2, lambda n: [3, 4], lambda n: [5])
    assert equal.chosen == 3
