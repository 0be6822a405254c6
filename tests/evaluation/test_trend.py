"""The trend: a worked example, and how one is chosen."""

import numpy as np
import pytest

from bert4rec_jax.evaluation.trend import DAYS, Trend, choose_trend

DAY = 86_400


def test_a_worked_example(write):
    """a twice long ago, b three times on the last day, c after training."""
    days = [[0, 1, 10], [10, 10.5, 11]]
    letters = write(["aab", "bbc"], times=[[int(t * DAY) for t in row] for row in days])
    trend = Trend(days=1, smoothing=5, weight=1, against=0.5)
    shift = trend.shift(letters.store, letters.stop(3, 2))
    # Recent events and 5 shared out 2 : 3 are 0 + 2 and 3 + 3.
    a, b = np.log(2) - 0.5 * np.log(2), np.log(6) - 0.5 * np.log(3)
    mean = (2 * a + 3 * b) / 5
    assert letters.by_letter(shift, "abc") == pytest.approx([a - mean, b - mean, 0], abs=1e-6)
    assert (shift[:2] == 0).all(), "PAD and MASK"


def test_nothing_after_training_matters(write):
    times = [[0, 5 * DAY, 9 * DAY], [DAY, 5 * DAY, 8 * DAY]]
    one, other = (write([last, "bac"], times=times) for last in ("aba", "abc"))
    trend, stop = Trend(days=3), (2, 2)
    one, other = ((x, trend.shift(x.store, x.stop(*stop))) for x in (one, other))
    assert one[0].by_letter(one[1], "ab") == other[0].by_letter(other[1], "ab")


def test_days_are_chosen_first_then_smoothing_then_the_weights():
    def ask(trend):
        if trend is None:
            return 0.1
        distance = (
            abs(trend.days - 14)
            + abs(trend.smoothing - 10)
            + abs(trend.weight - 0.75)
            + abs(trend.against - 0.25)
        )
        return 0.3 - distance / 1000

    found = choose_trend(ask)
    assert found.chosen == Trend(14, 10, 0.75, 0.25)
    assert [trend.days for trend, _ in found.trials[: len(DAYS)]] == list(DAYS)
    assert len({trend for trend, _ in found.trials}) == len(found.trials) < 30
    values = found.to_json("trend")
    assert values["trend"] == {"days": 14, "smoothing": 10, "weight": 0.75, "against": 0.25}
    assert values["ndcg@10_without"] == 0.1
    assert Trend(**values["trend"]) == found.chosen


def test_a_trend_that_gains_nothing_is_not_taken():
    found = choose_trend(lambda trend: 0.1)
    assert found.chosen is None and found.to_json("trend")["trend"] is None
