"""Calibration: the offset with the best mean over both kinds of targets."""

import pytest

from bert4rec_jax.evaluation.calibration import FINER, OFFSETS, calibrate


def test_the_best_mean_is_found_coarsely_and_then_closely():
    asked = []

    def ask(offset):
        asked.append(offset)
        return 0.2 - 0.01 * (offset - 1.3) ** 2, 0.1

    found = calibrate(ask)
    assert asked == [*OFFSETS, *(1 + step for step in FINER)]
    assert found.chosen.offset == 1.25
    assert found.chosen.ndcg == pytest.approx((0.2 - 0.01 * 0.0025 + 0.1) / 2)


def test_of_equals_the_one_closest_to_zero():
    assert calibrate(lambda offset: (0.1, 0.1)).chosen.offset == 0


def test_what_is_kept():
    kept = calibrate(lambda offset: (0.5 - offset / 100, 0.25 + offset / 100 * (offset < 2)))
    values = kept.to_json()
    offsets = [trial["offset"] for trial in values["trials"]]
    assert offsets == sorted(offsets) and len(offsets) == len(OFFSETS) + len(FINER)
    assert values["offset"] in offsets
    assert values["warm_ndcg@10"] == pytest.approx(0.5 - values["offset"] / 100)
