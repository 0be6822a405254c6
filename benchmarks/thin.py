"""Makes a sparse log from a rich one: real histories are cut into users of 5 to 10 events each.

    bert4rec prepare movietweetings --output data/all \\
        --min-user-interactions 3 --min-item-interactions 1
    python benchmarks/thin.py data/all thin.csv --pieces 3
    bert4rec prepare thin.csv --output data/thin \\
        --min-user-interactions 5 --min-item-interactions 1

This is for trying recipes on a log like that of a shop. The same store gives the same file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.outputs import whole_file


def shoppers(
    store: SequenceStore, generator: np.random.Generator, pieces: int
) -> Iterator[tuple[str, slice]]:
    """Cut histories into users of 5 to 10 events: a name and rows for each."""
    for user, (start, stop) in enumerate(zip(store.offsets[:-1], store.offsets[1:])):
        at = int(start)
        for piece in range(pieces):
            if at + 5 > stop:
                break
            end = min(at + int(generator.integers(5, 11)), int(stop))
            yield f"{user}_{piece}", slice(at, end)
            at = end


def main(
    store: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CSV")],
    pieces: int = 3,
) -> None:
    """Cut a store's histories.

    Args:
        store: A folder made by `bert4rec prepare`.
        output: The log to write, with tokens as item ids.
        pieces: The most users that one history becomes; what is left of it is dropped.
    """
    source = SequenceStore.open(store)
    lines = ["user_id,item_id,timestamp"]
    for name, rows in shoppers(source, np.random.default_rng(0), pieces):
        events = zip(source.tokens[rows], source.timestamps[rows])
        lines += [f"{name},{token},{time}" for token, time in events]
    with whole_file(output) as file:
        file.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    tyro.cli(main)
