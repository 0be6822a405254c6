"""Small stores written as strings: one letter is one item."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore, write_store


@dataclass(frozen=True)
class Letters:
    """A store and its letters."""

    store: SequenceStore

    def token(self, letter: str) -> int:
        return self.store.catalog.token(letter)

    def tokens(self, letters: str) -> npt.NDArray[np.int64]:
        return np.array([self.token(letter) for letter in letters], np.int64)

    def stop(self, *lengths: int) -> npt.NDArray[np.int64]:
        """Training sees this many rows of each user."""
        return self.store.offsets[:-1] + np.array(lengths)

    def case(self, user: int, position: int) -> Cases:
        """The question with target `history[position]`."""
        return Cases(np.array([user]), self.store.offsets[[user]] + position, {})

    def by_letter(self, row: npt.NDArray[np.float32], letters: str) -> list[float]:
        return [float(row[self.token(letter)]) for letter in letters]


def _write(tmp_path, histories, times=None) -> Letters:
    users = [user for user, history in enumerate(histories) for _ in history]
    letters = [letter for history in histories for letter in history]
    items = pa.array(letters).dictionary_encode()
    moments = list(range(len(users))) if times is None else [t for row in times for t in row]
    log = Interactions(
        users=np.array(users, np.int32),
        items=items.indices.to_numpy().astype(np.int32),
        timestamps=np.array(moments, np.int64),
        ratings=np.full(len(users), np.nan, np.float32),
        user_ids=pa.array([str(user) for user in range(len(histories))]),
        item_ids=items.dictionary,
        timed=times is not None,
    )
    return Letters(write_store(log.in_time_order(), tmp_path / "letters", titles={}, source={}))


@pytest.fixture
def write(tmp_path) -> Callable[..., Letters]:
    """`write(["abc", "bd"], times=[[...], [...]])`; without times the log is untimed."""
    return lambda histories, times=None: _write(tmp_path, histories, times)


@pytest.fixture
def five(write) -> Letters:
    """Five users; the last row of the last one is meant to be a target."""
    return write(["abc", "abd", "acb", "bd", "ae"])
