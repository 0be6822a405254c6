"""Splits: the split that a config names, and the histories that it is about."""

from __future__ import annotations

from pathlib import Path

from bert4rec_jax.checks import seconds_of
from bert4rec_jax.config import Config
from bert4rec_jax.data.cold import arrange, choose_cold, cold_items
from bert4rec_jax.data.split import REPEATED, Split, global_time, leave_one_out
from bert4rec_jax.data.store import SequenceStore, is_store, write_arranged
from bert4rec_jax.data.thumbs import UP, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.processes import barrier, is_first


def open_split(
    config: Config, store: SequenceStore, thumbs: tuple[float, float]
) -> tuple[SequenceStore, Split]:
    """The histories to use, which are the store or its rearrangement, and their split.

    A rearrangement is kept in the workdir.

    Raises:
      UserError: see the splits, `arrange` and `write_arranged`.
    """
    data, repeats = config.data, config.data.repeats
    if data.split == "cold-items":
        return _without_cold_items(
            store, Path(config.workdir) / "without_cold_items", repeats=repeats
        )
    if data.split == "global-time":
        test_from = seconds_of(data.test_from) if data.test_from else None
        return store, global_time(
            store, quantile=data.time_quantile, test_from=test_from, repeats=repeats
        )
    if data.targets == "liked":
        liked = to_thumbs(store.ratings, thumbs) >= UP
        return store, leave_one_out(store, liked, repeats=repeats)
    return store, leave_one_out(store, repeats=repeats)


def require_validation(split: Split, store: SequenceStore) -> None:
    """Refuse a split without any case for validation.

    Raises:
      UserError: it has none; says why users are left out.
    """
    if len(split.validation):
        return
    dropped = split.validation.dropped
    reasons = "; ".join(f"{n:,} {why}" for why, n in dropped.items())
    reasons += " (--data.repeats keeps these)" if REPEATED in dropped else ""
    raise UserError(
        f"no user of {store.path} can be asked on validation: {reasons or 'there is none'}. "
        "Prepare a log whose users have several different items, or another --data.split"
    )


def _without_cold_items(
    store: SequenceStore, path: Path, *, repeats: bool
) -> tuple[SequenceStore, Split]:
    """Hold out cold items: the rearranged store, kept in `path`, and the split that asks for them.

    With `repeats`, a warm target may occur in its history already.

    Raises:
      UserError: see `arrange`, `write_arranged` and `SequenceStore.verify`.
    """
    cold = choose_cold(store)
    arrangement = arrange(store, cold)
    if is_first() and not (
        is_store(path)
        and SequenceStore.open(path).manifest["source"].get("arranged_from") == store.fingerprint
    ):
        write_arranged(
            store,
            path,
            rows=arrangement.rows,
            offsets=arrangement.offsets,
            users=arrangement.users,
            source={**store.manifest["source"], "arranged_from": store.fingerprint},
        )
    barrier("cold items are held out")
    arranged = SequenceStore.open(path)
    arranged.verify()
    return arranged, cold_items(arranged, arrangement, cold, repeats=repeats)
