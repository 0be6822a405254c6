import numpy as np
import pyarrow as pa
import pytest

from bert4rec_jax.serving import ragged as module
from bert4rec_jax.serving.ragged import Ragged, text_ranges


def ragged(*lists):
    return Ragged.from_lengths(
        np.array([value for values in lists for value in values], np.int32),
        np.array([len(values) for values in lists]),
    )


def listed(found):
    return [found[row].tolist() for row in range(len(found))]


THREE = ragged([7, 8, 7], [], [9, 5])


def test_values_and_offsets():
    assert THREE.values.tolist() == [7, 8, 7, 9, 5]
    assert THREE.offsets.tolist() == [0, 3, 3, 5]
    assert THREE.rows.tolist() == [0, 0, 0, 2, 2]
    assert THREE.places.tolist() == [0, 1, 2, 0, 1]
    assert listed(Ragged.empty(2)) == [[], []]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (THREE.last(2), [[8, 7], [], [9, 5]]),
        (THREE.take(np.array([2, 0, 2])), [[9, 5], [7, 8, 7], [9, 5]]),
        (THREE.where(THREE.values > 7), [[8], [], [9]]),
        (THREE.distinct(), [[7, 8], [], [5, 9]]),
        (THREE.beside(ragged([1], [2, 3], [])), [[7, 8, 7, 1], [2, 3], [9, 5]]),
        (THREE.slices(np.array([1, 4]), np.array([3, 0])), [[8, 7, 9], []]),
    ],
)
def test_lists_from_lists(found, expected):
    assert listed(found) == expected


def test_padding_comes_after_the_values():
    assert THREE.padded(4).tolist() == [[7, 8, 7, 0], [0, 0, 0, 0], [9, 5, 0, 0]]


def test_keys_tell_lists_apart():
    assert np.isin(THREE.keys(), ragged([9], [7], [9]).keys()).tolist() == [False] * 3 + [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([2, 1, 3, 0, 1], [(0, 2), (2, 4), (4, 5)]),
        ([9, 0, 1], [(0, 1), (1, 3)]),  # too long for a range: alone
        ([0, 0], [(0, 2)]),
        ([], [(0, 0)]),
    ],
)
def test_ranges_are_cut_by_the_bytes_of_the_longest_id(monkeypatch, lengths, expected):
    """An accented letter has 2 bytes, so 3 ids fit."""
    monkeypatch.setattr(module, "_TEXT_BYTES", 19)
    ids = pa.array(["a", "\u00e9\u00e9\u00e9", "b"])
    assert list(text_ranges(np.array(lengths, np.int64), ids)) == expected
    assert list(text_ranges(np.zeros(0, np.int64), pa.array([], pa.string()))) == [(0, 0)]
