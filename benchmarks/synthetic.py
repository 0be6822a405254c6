"""A synthetic log of any size, shaped like a real one: MovieTweetings, expanded like a fractal.

    python benchmarks/synthetic.py data/synthetic --interactions 100000000
    bert4rec prepare data/synthetic --output data/prepared

This follows the fractal expansion of Belletti et al. (2019, arXiv:1901.08910): the matrix of users
and items is multiplied (Kronecker product) with a smaller random one, which gives more users and
items while the tails of their distributions keep their shape. Here:

- Every user stands for C users and every item for 64 items, with C as large as the wanted
  interactions need.
- An event of a user with an item becomes 16 events of each of the C users, with 16 of the 64 items,
  which are drawn without replacement with probabilities falling as 1/rank. So the popularity of
  an item is the real one times this power law, and a user has 16 times the real events: 107 on
  average.
- The time is the real one, shifted by up to three days for each user, and by up to two hours for
  each event. Ratings are the real ones.

Each shard holds one period of time, so every user occurs in many shards, as in the log of a
service; within a shard, rows are in random order. This is the hardest case for `prepare`. Equal
arguments give equal rows. Memory does not grow with the number of interactions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.data.store import SequenceStore

_ITEM_COPIES = 64
SPREAD = 16  # events that a real one becomes, for each copy of its user
_PIECE = 1 << 15  # real events times copies, expanded at once
_ROW_GROUP = 1 << 20
_DAYS = 3 * 86_400
_HOURS = 2 * 3_600


def main(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    interactions: int = 1_000_000,
    spread: int = SPREAD,
    shard_rows: int = 4_000_000,
    seed: int = 0,
) -> None:
    """Write the log.

    Args:
        folder: The folder of Parquet files to make.
        interactions: Rows of all files together.
        spread: Events that a real one becomes for each copy of its user, at most 63; with fewer
            there are more users.
        shard_rows: Rows of a file, about.
        seed: Of everything random.
    """
    write(folder, interactions, spread=spread, shard_rows=shard_rows, seed=seed)


def write(
    folder: Path,
    interactions: int,
    *,
    spread: int = SPREAD,
    shard_rows: int = 4_000_000,
    seed: int = 0,
) -> None:
    """Write `part-00000.parquet`, ... with user_id, item_id, rating and timestamp."""
    folder.mkdir(parents=True)
    events = _real_events()
    copies = -(-interactions // (spread * len(events["users"])))
    shards = -(-interactions // shard_rows)
    left = interactions
    for shard, part in enumerate(np.array_split(np.argsort(events["timestamps"]), shards)):
        # Rows beyond `interactions` are left out of all shards evenly.
        rows = min(left, -(-interactions * len(part) // len(events["users"])))
        left -= rows
        path = folder / f"part-{shard:05d}.parquet"
        writer = None
        some = {name: values[part] for name, values in events.items()}
        for table in _tables(some, copies, spread, rows, [seed, shard]):
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table, row_group_size=_ROW_GROUP)
        if writer:
            writer.close()


def _real_events() -> dict[str, np.ndarray]:
    """All of MovieTweetings, by user."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store"
        prepare("movietweetings", path, min_user_interactions=1, min_item_interactions=1)
        store = SequenceStore.open(path)
        return {
            "users": np.repeat(np.arange(store.num_users), store.lengths),
            "items": np.array(store.tokens),
            "ratings": np.array(store.ratings),
            "timestamps": np.array(store.timestamps),
        }


def _tables(
    events: dict[str, np.ndarray], copies: int, spread: int, rows: int, seed: list[int]
) -> Iterator[pa.Table]:
    """The `rows` rows of a shard, in pieces: these events, for all copies of their users."""
    generator = np.random.default_rng(seed)
    pairs = generator.permutation(len(events["users"]) * copies)  # (event, copy)
    pairs = pairs[: -(-rows // spread)]
    for start in range(0, len(pairs), _PIECE):
        piece = pairs[start : start + _PIECE]
        table = _expanded(events, piece // copies, piece % copies, copies, spread, generator)
        yield table.slice(0, min(table.num_rows, rows - start * spread))


def _expanded(
    events: dict[str, np.ndarray],
    event: np.ndarray,
    copy: np.ndarray,
    copies: int,
    spread: int,
    generator: np.random.Generator,
) -> pa.Table:
    """`spread` rows for every (event, copy of its user), in random order."""
    # The smallest of exponential times with rates 1/rank: a draw without replacement.
    times = generator.standard_exponential((len(event), _ITEM_COPIES), np.float32)
    times *= np.arange(1, _ITEM_COPIES + 1, dtype=np.float32)
    chosen = np.argpartition(times, spread, axis=1)[:, :spread].ravel()
    order = generator.permutation(len(chosen))
    event, copy = np.repeat(event, spread)[order], np.repeat(copy, spread)[order]
    users = events["users"][event] * copies + copy
    moved = (
        users * 2_654_435_761 % (2 * _DAYS) - _DAYS + generator.integers(_HOURS, size=len(users))
    )
    return pa.table(
        {
            "user_id": users,
            "item_id": events["items"][event].astype(np.int64) * _ITEM_COPIES + chosen[order],
            "rating": events["ratings"][event],
            "timestamp": events["timestamps"][event] + moved,
        }
    )


if __name__ == "__main__":
    tyro.cli(main)
