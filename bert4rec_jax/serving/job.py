"""Job: ranks a file of requests into a folder of lists, shard by shard; it can be resumed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from os import PathLike
from pathlib import Path
from typing import Any

from bert4rec_jax.checks import require_a, require_path
from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.store import is_store
from bert4rec_jax.errors import Notify, UserError, warn
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.json_requests import as_parquet
from bert4rec_jax.serving.pipeline import require_enough
from bert4rec_jax.serving.request_file import RequestFile
from bert4rec_jax.serving.requests import (
    CANDIDATES,
    COLUMNS,
    HISTORY,
    LATE,
    TIMESTAMPS,
    RequestReader,
)
from bert4rec_jax.serving.shards import Shard, Shards
from bert4rec_jax.serving.store_requests import request_file
from bert4rec_jax.serving.times import require_in_training
from bert4rec_jax.serving.worker import Options, Plan, Worker

SCHEMA_VERSION = 1
CATALOG_TOP = 100
_ENOUGH = 20  # ids of which none is known: they are of another system
DEFAULTS = Options()
Progress = Callable[[int, int], None]  # requests done, requests in all
# Makes the shards with the given numbers (ascending), in any order, and yields each one once it is
# written. The opened bundle is for use in this process only.
Engine = Callable[[Plan, Bundle, list[int]], Iterator[Shard]]


def local(plan: Plan, bundle: Bundle, missing: list[int]) -> Iterator[Shard]:
    """The engine that makes shards in this process, on all its devices."""
    worker = Worker(plan, bundle)
    for numbers in spans(missing, len(missing)):
        yield from worker.make(numbers)


def rank_file(
    bundle: str | PathLike[str],
    requests: str | PathLike[str],
    output: str | PathLike[str],
    options: Options = DEFAULTS,
    *,
    users: str | PathLike[str] | None = None,
    engine: Engine = local,
    progress: Progress = lambda done, total: None,
    notify: Notify = warn,
) -> dict[str, Any]:
    """Answer every request of a file: row i of the output answers row i of the requests.

    The output is a folder of Parquet files with the columns `user_id`, `item_ids` (list, best
    first, equal scores in the order of the catalog) and `scores` (list of float32). Called again
    after an interruption, it continues; called again after its end, it only checks the output. Each
    shard is computed independently, so on the same kind of machine neither an interruption nor the
    engine changes any byte.

    Args:
      bundle: a folder made by `bert4rec export`.
      requests: a Parquet file, a folder of them, or JSON Lines; see `docs/serving.md` for the
        columns. Or a folder made by `bert4rec prepare`: all its users with their whole histories.
      output: the folder to make; while the job works it is `OUTPUT.partial`.
      options: see `Options`.
      users: a table of user features for the users of a prepared log; requests in a file have them
        as columns of their own.
      engine: makes the shards.
      progress: called at the start, and whenever a shard is finished.
      notify: called with a sentence about what looks like a mistake, but may be meant; by default a
        Python warning.

    Returns:
      The manifest of the output.

    Raises:
      UserError: see `Bundle.open`, `request_file`, `as_parquet`, `RequestFile.open`,
        `Filters.allowed` and `Shards`; lists are to be longer than the number of candidates of a
        pipeline; the requests changed meanwhile; or they are a prepared log, for another engine.
    """
    bundle, output = require_path(bundle, "bundle"), require_path(output, "output")
    requests = require_path(requests, "requests")
    features = None if users is None else require_path(users, "users")
    require_a(Options, options, "options", "RankOptions")
    require_a(Callable, engine, "engine", "a function such as `serving.job.local`")
    opened = Bundle.open(bundle)
    reader = RequestReader.of(opened)
    if options.asked_at is not None:
        opened.require_times()
        require_in_training(options.asked_at, opened.trained_from, "the time of the request")
    if engine is not local and is_store(requests):
        raise UserError(
            f"{requests} is a prepared log, which other machines cannot read; give a file of "
            "requests, or the engine of this process"
        )
    with (
        request_file(requests, features, times=reader.times) as given,
        as_parquet(given, output, reader) as file,
    ):
        asked = RequestFile.open(
            file,
            reader.more_columns,
            times=reader.times,
            name=requests,
            lines_of=None if file == given else requests.resolve(),
        )
        for sentence in _doubts(asked, reader):
            notify(sentence)
        plan = _planned(asked, bundle, opened, output, options, notify)
        return _answered(plan, opened, engine, progress, notify)


def _planned(
    asked: RequestFile,
    bundle: Path,
    opened: Bundle,
    output: Path,
    options: Options,
    notify: Notify,
) -> Plan:
    """What to answer how, and the output that belongs to that; see `rank_file`."""
    if options.top is None and CANDIDATES not in asked.schema.names:
        options = replace(options, top=min(CATALOG_TOP, opened.candidates or CATALOG_TOP))
    if opened.retriever is not None:
        require_enough(opened.candidates, options.top)
    options.filters.allowed(opened.catalog)
    if options.asked_at is not None:
        late = options.asked_at - opened.trained_until
        if late > LATE:
            notify(
                f"the lists are for {late / SECONDS_PER_DAY:,.0f} days after the training data of "
                "the model ends, "
                "and it has learned nothing of what came since; train it again on newer data"
            )
    unknown = options.filters.unknown(opened.catalog)
    if unknown:
        only = options.filters.only
        notify(
            f"{only if isinstance(only, Path) else 'only'}: {len(unknown):,} of its ids, such as "
            f"{unknown[0]!r}, are not in the catalog"
        )
    job = {
        "schema": SCHEMA_VERSION,
        "bundle": opened.fingerprint,
        "requests": asked.sha256,
        "rows": asked.rows,
        **asdict(options),
        "filters": options.filters.described(),
    }
    job["request_time"] = options.asked_at
    if options.asked_at is None:
        del job["request_time"]  # so that a job of an earlier version can be continued
    # Workers may not see the file of ids, or see it later, when it has changed.
    options = replace(options, filters=options.filters.without_file())
    return Plan(bundle, opened.fingerprint, asked, Shards(output, job), options)


def _answered(
    plan: Plan, opened: Bundle, engine: Engine, progress: Progress, notify: Notify
) -> dict[str, Any]:
    """Make the output, or continue it, and return its manifest; see `rank_file`."""
    shards, rows = plan.shards, plan.requests.rows
    finished = shards.finished()
    if finished is None:
        with shards.held():
            finished = shards.finished()  # another process may have finished it meanwhile
            if finished is None:
                finished = _to_the_end(plan, opened, engine, progress)
                _tell_what_is_unknown(finished["counts"], notify)
                return finished
    shards.require_whole(_sizes(rows, plan.options.shard_rows))
    progress(rows, rows)
    return finished


def spans(numbers: list[int], longest: int) -> list[range]:
    """Group ascending numbers into ranges of at most `longest`, each to be read in one pass."""
    runs: list[range] = []
    for number in numbers:
        if runs and number == runs[-1].stop and len(runs[-1]) < longest:
            runs[-1] = range(runs[-1].start, number + 1)
        else:
            runs.append(range(number, number + 1))
    return runs


def _to_the_end(plan: Plan, bundle: Bundle, engine: Engine, progress: Progress) -> dict[str, Any]:
    """Make the missing shards, finish the output, and return its manifest."""
    sizes = _sizes(plan.requests.rows, plan.options.shard_rows)
    found = (plan.shards.made(number, size) for number, size in enumerate(sizes))
    made = {shard.number: shard for shard in found if shard is not None}
    if not made:
        _require_some_known(plan.requests, bundle, plan.options.shard_rows)
    plan.shards.begin()
    done = sum(shard.rows for shard in made.values())
    progress(done, plan.requests.rows)
    missing = [number for number in range(len(sizes)) if number not in made]
    for shard in engine(plan, bundle, missing) if missing else ():
        made[shard.number] = shard
        done += shard.rows
        progress(done, plan.requests.rows)
    try:
        plan.requests.require_unchanged()
    except UserError:
        plan.shards.discard()  # some may answer other requests than those of the job
        raise
    counts: Counter[str] = Counter()
    for number in range(len(sizes)):
        counts.update(made[number].counts)
    return plan.shards.finish(
        {
            "counts": {**counts, "duplicate_users": plan.requests.duplicate_users},
            "made_by": sorted({shard.by for shard in made.values()}),
        }
    )


def _sizes(rows: int, longest: int) -> list[int]:
    """Requests per shard; without any requests there is one empty shard."""
    return [min(longest, rows - start) for start in range(0, rows, longest)] or [0]


def _require_some_known(asked: RequestFile, bundle: Bundle, size: int) -> None:
    """Refuse requests if no id of any history is in the catalog.

    Such ids belong to another system, or have lost their leading zeros. Usually a look at the first
    shard is enough.
    """
    reader = RequestReader.of(bundle)
    items, example = 0, ""
    for number, table in asked.shards(size, 0):
        counts = reader.read(table, asked.where(number * size)).counts
        if counts["history_items"] > counts["unknown_history_items"]:
            return
        if counts["history_items"] and not items:
            example = next(ids[0] for ids in table[HISTORY].to_pylist() if ids)
        items += counts["history_items"]
    if items >= _ENOUGH:
        raise UserError(
            f"{asked.path}: none of the {items:,} ids in {HISTORY} (such as {example!r}) is in the "
            f"catalog of the bundle (such as {bundle.catalog.item_ids[0]!r}); write ids as in the "
            "training data"
        )


def _doubts(asked: RequestFile, reader: RequestReader) -> Iterator[str]:
    """What looks like a mistake in the columns of requests: missing ones, misspelt names."""
    missing = [name for name in reader.user_columns if name not in asked.schema.names]
    if missing:
        yield (
            f"the requests have no column {', '.join(missing)}: the model reads these user "
            "features, and takes them as missing for all users"
        )
    if reader.times and TIMESTAMPS not in asked.schema.names:
        yield (
            f"the requests have no column {TIMESTAMPS}: the model reads when each item was seen, "
            "and takes all as seen at the time of the request"
        )
    if asked.ignored:
        names = (*COLUMNS, *reader.more_columns)
        close = [
            f"did you mean {known[0]}?"
            for name in asked.ignored
            if (known := difflib.get_close_matches(name.lower(), names, 1, 0.8))
        ]
        yield f"columns that are not read: {'; '.join([', '.join(asked.ignored), *close[:1]])}"


def _tell_what_is_unknown(counts: Mapping[str, int], notify: Notify) -> None:
    items, unknown = counts.get("history_items", 0), counts.get("unknown_history_items", 0)
    if unknown > items / 2:
        notify(
            f"{unknown:,} of {items:,} items in histories are not in the catalog of the bundle; if "
            "that is not meant, write ids as in the training data"
        )
