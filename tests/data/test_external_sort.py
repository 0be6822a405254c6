"""The external sort and the files under it: nothing depends on how much is in memory at once."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from sample import interactions

from bert4rec_jax.data.external_sort import Runs
from bert4rec_jax.data.rows import ArrayFile, Rows


@pytest.mark.parametrize("pieces", [[], [[]], [[3, 1], [], [2] * 2000]])
def test_an_array_in_pieces_has_the_bytes_of_the_whole(tmp_path, pieces):
    whole = [value for piece in pieces for value in piece]
    with ArrayFile(tmp_path / "pieces.npy", np.int64) as file:
        for piece in pieces:
            file.append(np.array(piece, np.int32))
        assert file.read(0, len(file)).tolist() == whole
        assert file.read(1, 3).tolist() == whole[1:3]
    np.save(tmp_path / "whole.npy", np.array(whole, np.int64))
    assert (tmp_path / "pieces.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


@pytest.mark.parametrize("rows", [1, 20, 1000])
@pytest.mark.parametrize("block", [1, 7, 1000])
def test_any_blocks_and_ranges_give_the_order_of_the_whole(tmp_path, rows, block):
    generator = np.random.default_rng(0)
    log = interactions([(*row, row[0] % 5) for row in generator.integers(0, 9, (300, 3)).tolist()])
    with Rows(tmp_path / "rows") as kept:
        runs = Runs(kept)
        for start in range(0, len(log), block):
            runs.append(log.take(np.arange(start, min(start + block, len(log)))))
        pieces = list(runs.in_time_order(rows))
    whole = log.in_time_order()
    assert len(whole) < len(log)
    assert len(pieces) == {1: 9, 20: 9, 1000: 1}[rows]
    for name in ("users", "items", "timestamps", "ratings"):
        joined = np.concatenate([getattr(piece, name) for piece in pieces])
        np.testing.assert_array_equal(joined, getattr(whole, name))
    assert not (tmp_path / "rows").exists()


def test_ids_that_come_later_are_known_to_earlier_rows(tmp_path):
    first = interactions([("b", "x", 2)])
    later = interactions([("b", "x", 2), ("a", "y", 1), ("b", "z", 1)]).take(np.array([1, 2]))
    with Rows(tmp_path / "rows") as rows:
        runs = Runs(rows)
        runs.append(first)
        runs.append(later)
        (piece,) = runs.in_time_order(10)
        assert rows.sizes == (2, 3)
    assert piece.user_ids.take(pa.array(piece.users)).to_pylist() == ["b", "b", "a"]
    assert piece.item_ids.take(pa.array(piece.items)).to_pylist() == ["z", "x", "y"]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_fractions_that_only_some_blocks_have(tmp_path, block):
    generator = np.random.default_rng(0)
    log = interactions(generator.integers(0, 9, (300, 3)).tolist())
    fractions = generator.integers(0, 3, 300).astype(np.int32)
    fractions[:20] = 0
    whole = replace(log, fractions=fractions)
    with Rows(tmp_path / "rows") as kept:
        runs = Runs(kept)
        for start in range(0, len(log), block):
            piece = whole.take(np.arange(start, min(start + block, len(log))))
            runs.append(piece if piece.fractions.any() else replace(piece, fractions=None))
        pieces = list(runs.in_time_order(20))
    found = np.concatenate([piece.items for piece in pieces])
    assert found.tolist() == whole.in_time_order().items.tolist()
    assert found.tolist() != log.in_time_order().items.tolist()
