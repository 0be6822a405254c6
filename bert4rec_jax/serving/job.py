"""Job: a file of requests to a folder of lists, shard by shard; continues where it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.ranking import Lists
from bert4rec_jax.serving.request_file import RequestFile
from bert4rec_jax.serving.requests import CANDIDATES, HISTORY, USER
from bert4rec_jax.serving.scorer import Scorer
from bert4rec_jax.serving.shards import Shards

SCHEMA_VERSION = 1
CATALOG_TOP = 100
Progress = Callable[[int, int], None]  # requests done, requests in all


@dataclass(frozen=True)
class Options:
    """How a job answers.

    Attributes:
      top: the longest list; None for all candidates, or CATALOG_TOP of the whole catalog.
      keep_seen: also list items of the history.
      batch_size: histories computed at once.
      shard_rows: requests per file of the output, and held in memory.
    """

    top: int | None = None
    keep_seen: bool = False
    batch_size: int = 256
    shard_rows: int = 16_384

    def __post_init__(self) -> None:
        for name in ("top", "batch_size", "shard_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}; expected at least 1")


def rank_file(
    bundle: Path,
    requests: Path,
    output: Path,
    options: Options,
    *,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Answer every request of a Parquet file: row i of the output answers row i of the requests.

    The output is a folder of Parquet files with the columns `user_id`, `item_ids` (list, best
    first, equal scores in the order of the catalog) and `scores` (list of float32). Called again
    after an interruption it continues; called again after its end it does nothing. A shard is
    computed by itself, so on the same kind of machine an interruption changes no value.

    Args:
      bundle: a folder made by `bert4rec export`.
      requests: a Parquet file or a folder of them; see `serving.requests` for the columns.
      output: the folder to make; while the job works it is `OUTPUT.partial`.
      options: see there.
      progress: told at the start and after every shard.

    Returns:
      The manifest of the output.

    Raises:
      UserError: see `Bundle.open`, `RequestFile.open` and `Shards`.
    """
    opened = Bundle.open(bundle)
    asked = RequestFile.open(requests)
    if options.top is None and CANDIDATES not in asked.schema.names:
        options = Options(**{**asdict(options), "top": CATALOG_TOP})
    job = {
        "schema": SCHEMA_VERSION,
        "bundle": opened.fingerprint,
        "requests": asked.sha256,
        "rows": asked.rows,
        **asdict(options),
    }
    shards = Shards(output, job)
    finished = shards.finished()
    if finished is not None:
        progress(asked.rows, asked.rows)
        return finished
    shards.begin()
    counts = _work(shards, asked, opened, options, progress)
    counts["duplicate_users"] = asked.duplicate_users
    return shards.finish(
        {
            "counts": dict(counts),
            "jax": jax.__version__,
            "devices": [device.device_kind for device in jax.local_devices()],
        }
    )


def _work(
    shards: Shards, asked: RequestFile, bundle: Bundle, options: Options, progress: Progress
) -> Counter[str]:
    """Write the shards that are missing, and return the counts of all."""
    size = options.shard_rows
    counts: Counter[str] = Counter()
    missing = set()
    done = 0
    for number in range(max(1, -(-asked.rows // size))):
        rows = min(size, asked.rows - number * size)
        found = shards.counts(number, rows)
        if found is None:
            missing.add(number)
        else:
            counts.update(found)
            done += rows
    progress(done, asked.rows)
    if not missing:
        return counts
    scorer = Scorer(bundle, batch_size=options.batch_size)
    source = str(asked.path)
    for number, table in asked.shards(size, min(missing)):
        if number not in missing:
            continue
        requests = scorer.reader.read(table, source=source, first_row=number * size)
        lists = scorer.ranker.rank(requests, top=options.top, keep_seen=options.keep_seen)
        found = Counter({**requests.counts, **lists.counts})
        counts.update(found)
        _require_some_known(counts, table, bundle.catalog, source)
        shards.write(number, _answers(table[USER], lists, bundle.catalog), found)
        done += len(table)
        progress(done, asked.rows)
    return counts


def _answers(users: pa.ChunkedArray, lists: Lists, catalog: Catalog) -> pa.Table:
    ids = pa.array(catalog.item_ids, pa.string())
    offsets = pa.array(lists.items.offsets.astype(np.int32))
    items = ids.take(pa.array(lists.items.values - FIRST_ITEM))
    return pa.table(
        {
            USER: users,
            "item_ids": pa.ListArray.from_arrays(offsets, items),
            "scores": pa.ListArray.from_arrays(offsets, pa.array(lists.scores)),
        }
    )


def _require_some_known(
    counts: Counter[str], table: pa.Table, catalog: Catalog, source: str
) -> None:
    """Refuse a file in which no item is of the catalog: ids of another system, or lost zeros."""
    items = counts["history_items"]
    if not items or counts["unknown_history_items"] < items:
        return
    example = next(ids[0] for ids in table[HISTORY].to_pylist() if ids)
    raise UserError(
        f"{source}: none of the {items:,} ids in {HISTORY} (such as {example!r}) is in the catalog "
        f"of the bundle (such as {catalog.item_ids[0]!r}); write ids as in the training data"
    )
