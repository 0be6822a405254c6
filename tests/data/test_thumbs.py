import numpy as np
import pytest

from bert4rec_jax.data.thumbs import DOWN, NONE, TWO_UP, UP, default_thresholds, to_thumbs
from bert4rec_jax.errors import UserError


def test_thresholds_belong_to_the_better_thumb_and_nan_is_none():
    ratings = np.array([0, 5, 5.5, 6, 8, 8.5, 9, 10, np.nan], np.float32)
    thumbs = to_thumbs(ratings, (6, 9))
    assert thumbs.dtype == np.int8
    assert thumbs.tolist() == [DOWN, DOWN, DOWN, UP, UP, UP, TWO_UP, TWO_UP, NONE]
    assert (NONE, DOWN, UP, TWO_UP) == (0, 1, 2, 3)


def test_shape_stays():
    assert to_thumbs(np.full((2, 3), 3.0), (3, 4.5)).tolist() == [[UP] * 3] * 2
    assert to_thumbs(np.empty((0, 4), np.float32), (3, 4.5)).shape == (0, 4)


@pytest.mark.parametrize(
    ("max_rating", "thresholds"),
    [(None, (3, 4.5)), (1, (1, 2)), (5, (3, 4.5)), (5.5, (6, 9)), (10, (6, 9))],
)
def test_defaults_follow_the_scale(max_rating, thresholds):
    assert default_thresholds(max_rating) == thresholds


def test_a_scale_above_ten_needs_thresholds():
    with pytest.raises(
        UserError, match=r"highest rating is 100, .* up to 5 or 10; set data\.thumbs"
    ):
        default_thresholds(100.0)


def test_thresholds_that_nothing_reads_are_in_proportion():
    assert default_thresholds(59.0, read=False) == (0.6 * 59, 0.9 * 59)
    assert default_thresholds(5.0, read=False) == (3.0, 4.5)
