"""Makes a log like that of a shop: many items, and users of 5 to 10 events each.

    python benchmarks/shop.py shop.csv --users 60000 --items 50000
    python train.py general --data.path shop.csv --data.min-item-interactions 1 --workdir runs/shop

For trying sizes and times: what is bought next is made up (a successor of the last item, another of
its category, one of a related category, or a popular one), so figures of quality say little about
real shops. The same arguments give the same file.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from bert4rec_jax.outputs import whole_file

Ints = npt.NDArray[np.int64]

_PER_CATEGORY = 100  # items, on average
_SUCCESSORS, _RELATED = 6, 3
_MOVES = np.cumsum([0.35, 0.4, 0.1])  # to a successor, within the category, to a related one
_START, _SECONDS = 1_600_000_000, 200_000.0  # of the first day, and mean between two events


class Shop:
    """Items with a popularity and a category, and which of them lead to which."""

    def __init__(self, items: int, rng: np.random.Generator) -> None:
        self._rng = rng
        categories = max(1, items // _PER_CATEGORY)
        self._category = rng.integers(0, categories, items)
        self._popularity = rng.permutation(1 / np.arange(1, items + 1) ** 0.8)
        self._order = np.argsort(self._category, kind="stable")
        bounds = np.searchsorted(self._category[self._order], np.arange(categories + 1))
        self._everywhere = np.cumsum(self._popularity)
        self._within = [np.cumsum(self._popularity[self._order[a:b]]) for a, b in pairwise(bounds)]
        self._first = bounds[:-1]
        self._related = rng.integers(0, categories, (categories, _RELATED))
        self._successors = np.array(
            [[self._of(category) for _ in range(_SUCCESSORS)] for category in self._category]
        )

    def popular(self) -> int:
        """An item, by popularity."""
        return self._drawn(self._everywhere)

    def after(self, item: int) -> int:
        """An item that may follow another one."""
        category = self._category[item]
        move = int(np.searchsorted(_MOVES, self._rng.random()))
        if move == 0:
            return int(self._rng.choice(self._successors[item]))
        if move == 1:
            return self._of(category)
        return self._of(self._rng.choice(self._related[category])) if move == 2 else self.popular()

    def _of(self, category: int) -> int:
        if not len(self._within[category]):
            return self.popular()
        return int(self._order[self._first[category] + self._drawn(self._within[category])])

    def _drawn(self, sums: npt.NDArray[np.float64]) -> int:
        return int(np.searchsorted(sums, self._rng.random() * sums[-1]))


def main(
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CSV")],
    users: int = 60_000,
    items: int = 50_000,
    seed: int = 0,
) -> None:
    """Make a log like that of a shop."""
    rng = np.random.default_rng(seed)
    shop = Shop(items, rng)
    with whole_file(output) as file:
        file.write(b"user_id,item_id,timestamp\n")
        for user in range(users):
            moment, item = _START + rng.uniform(0, 1.5e7), shop.popular()
            bought = dict.fromkeys([item])
            wanted = int(rng.integers(5, 11))
            while len(bought) < min(wanted, items):
                item = shop.after(item)
                bought.setdefault(item)
            for one in bought:
                file.write(f"u{user},B{one:06d},{int(moment)}\n".encode())
                moment += rng.exponential(_SECONDS)


if __name__ == "__main__":
    tyro.cli(main)
