import numpy as np
import pytest

from bert4rec_jax.serving.buckets import batch_size, blocks, history_widths, list_widths, smallest


@pytest.mark.parametrize(
    ("longest", "widths"),
    [(5, [5]), (15, [15]), (49, [15, 31, 49]), (199, [15, 31, 63, 127, 199])],
)
def test_history_widths(longest, widths):
    assert history_widths(longest) == widths


@pytest.mark.parametrize(
    ("longest", "widths"), [(0, [16]), (16, [16]), (17, [16, 64]), (300, [16, 64, 256, 1024])]
)
def test_list_widths(longest, widths):
    assert list_widths(longest) == widths


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (2, 8), (65, 100), (100, 100)])
def test_batch_sizes_up_to_a_hundred(rows, size):
    assert batch_size(rows, 100) == size


def test_a_length_gets_the_smallest_width_that_holds_it():
    assert smallest(np.array([0, 15, 16, 31]), [15, 31]).tolist() == [15, 15, 31, 31]


def test_blocks_hold_rows_of_equal_widths():
    first, second = np.array([15, 31, 15, 15, 15]), np.array([16, 16, 16, 64, 16])
    found = [(rows.tolist(), *widths) for rows, *widths in blocks((first, second), 2)]
    assert sorted(found) == [([0, 2], 15, 16), ([1], 31, 16), ([3], 15, 64), ([4], 15, 16)]
    assert list(blocks((first[:0], second[:0]), 2)) == []
