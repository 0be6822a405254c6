"""Splits: which rows of a store are for training, validation and test.

An evaluation case is one row of the store: its token is the target, and the history is everything
the user did before it. So a case is a pair (user, row), and no split in this module copies data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.ranges import covered, in_parts, joined
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError

REPEATED = "target already in the history"  # why a case is left out, unless `data.repeats` is on
_ROWS_AT_ONCE = 1 << 22  # 32 MiB of indices


@dataclass(frozen=True)
class Cases:
    """M evaluation cases: given the history `tokens[offsets[user]:row]`, predict `tokens[row]`.

    Attributes:
      users: `[M]` int64, indices into `SequenceStore.offsets`.
      rows: `[M]` int64, indices into `SequenceStore.tokens`.
      dropped: number of users without a case, by reason.
    """

    users: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, part: slice | npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Cases:
        return Cases(self.users[part], self.rows[part], self.dropped)

    def histories(self, store: SequenceStore) -> Iterator[npt.NDArray[np.int32]]:
        """The whole history before each target, oldest first."""
        for start, stop in zip(store.offsets[self.users], self.rows):
            yield store.tokens[start:stop]


@dataclass(frozen=True)
class Split:
    """Where each user's training rows end, and the cases to evaluate.

    Attributes:
      name: `leave_one_out`, `leave_one_out_liked`, `global_time` or `cold_items`.
      train_stop: `[U]` int64; training before model selection uses the rows
        `offsets[u]:train_stop[u]`.
      refit_stop: the same for the model that is tested; equal to `train_stop` if the split does not
        refit.
      validation: cases for model selection.
      test: named sets of cases; the first is the one whose results are quoted.
      within: test set -> the only tokens that its targets are ranked among; sets that are not in it
        are ranked among all items.
      cold_validation: validation cases whose targets have no training interaction, if the split
        holds out such items.
    """

    name: str
    train_stop: npt.NDArray[np.int64]
    refit_stop: npt.NDArray[np.int64]
    validation: Cases
    test: Mapping[str, Cases]
    within: Mapping[str, npt.NDArray[np.int32]] = field(default_factory=dict)
    cold_validation: Cases | None = None

    @property
    def refits(self) -> bool:
        """Whether the tested model is retrained on more data after model selection."""
        return not np.array_equal(self.train_stop, self.refit_stop)


def leave_one_out(
    store: SequenceStore,
    liked: npt.NDArray[np.bool_] | None = None,
    *,
    users: int | None = None,
    repeats: bool = False,
) -> Split:
    """Each user's last interaction is the test target, the one before it the validation target.

    At test time the validation item is part of the history. Users with fewer than three
    interactions are used for training only.

    Args:
      store: the data.
      liked: `[N]`: mask of rows that may be targets. With it, the targets are each user's last two
        liked items, each with everything before it as history; users without two are used for
        training only.
      users: only this many users, the first ones, are trained on and evaluated; None for all. Not
        used with `liked`.
      repeats: also keep cases whose target is already in the history.

    Raises:
      UserError: no user has three interactions or, with `liked`, two liked items after the first
        interaction.
    """
    starts, stops = store.offsets[:-1], store.offsets[1:]
    if liked is not None:
        return _last_two_liked(store, liked, repeats)
    first = np.arange(store.num_users) < (store.num_users if users is None else users)
    long_enough = (stops - starts >= 3) & first
    if not long_enough.any():
        raise UserError(
            f"leave-one-out needs a user with at least 3 interactions; the longest of "
            f"{store.num_users:,} histories has {int(store.lengths.max())}"
        )
    asked = np.flatnonzero(long_enough)
    short = int((first & ~long_enough).sum())
    train_stop = np.where(long_enough, stops - 2, np.where(first, stops, starts))
    return Split(
        name="leave_one_out",
        train_stop=train_stop,
        refit_stop=train_stop,
        validation=_cases(store, asked, stops[asked] - 2, short, repeats=repeats),
        test={"test": _cases(store, asked, stops[asked] - 1, short, repeats=repeats)},
    )


def _last_two_liked(store: SequenceStore, liked: npt.NDArray[np.bool_], repeats: bool) -> Split:
    starts, stops = store.offsets[:-1], store.offsets[1:]
    test_rows = last_row(liked, starts, stops)
    validation_rows = last_row(liked, starts, np.maximum(test_rows, starts))
    users = np.flatnonzero(validation_rows > starts)
    if not len(users):
        raise UserError(
            "no user has two liked items with a history before them; check data.thumbs, or use "
            "--data.targets any"
        )
    train_stop = stops.copy()
    train_stop[users] = validation_rows[users]
    why = "fewer than two liked items after the first"
    missing = store.num_users - len(users)
    return Split(
        name="leave_one_out_liked",
        train_stop=train_stop,
        refit_stop=train_stop,
        validation=_cases(store, users, validation_rows[users], missing, why, repeats=repeats),
        test={"test": _cases(store, users, test_rows[users], missing, why, repeats=repeats)},
    )


def last_row(
    wanted: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The last wanted row of each range `starts:stops`; -1 if it has none."""
    latest = np.maximum.accumulate(np.where(wanted, np.arange(len(wanted)), -1))
    found = np.where(stops > starts, latest[np.maximum(stops - 1, 0)], -1)
    return np.where(found >= starts, found, -1)


def global_time(
    store: SequenceStore,
    *,
    quantile: float = 0.9,
    test_from: int | None = None,
    repeats: bool = False,
) -> Split:
    """Train on the interactions up to a time T, test on those after it.

    T is the `quantile` of all timestamps, or the second before `test_from` (seconds since 1970).
    T_val is the same quantile of the timestamps up to T. Model selection trains on t ≤ T_val and
    validates on each user's last event in (T_val, T]; the tested model is refitted on t ≤ T. The
    target of `test` is each user's last event after T (the form of published numbers), that of
    `test_first` the first one (the form of deployment). A history holds everything before its
    target, including events after T. With `repeats`, the target may already be in the history.

    Raises:
      UserError: the log has no timestamps, or no user has an event in a test period.
    """
    if not store.timed:
        raise UserError(
            "the global-time split needs timestamps, and this log has none; use "
            "--data.split leave-one-out"
        )
    times = np.asarray(store.timestamps)
    t_test = _quantile(times, quantile) if test_from is None else test_from - 1
    if test_from is not None and not times.min() <= t_test < times.max():
        first, last = (f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d}" for t in
                       (int(times.min()), int(times.max())))  # fmt: skip
        raise UserError(
            f"the log of {store.path} goes from {first} to {last}, so no test begins at "
            f"{datetime.fromtimestamp(t_test + 1, UTC):%Y-%m-%d %H:%M}; choose a date in between"
        )
    t_validation = _quantile(times[times <= t_test], quantile)
    # Rows are sorted by time within a user, so counting is enough to find each boundary.
    train_stop = _boundary(store, times <= t_validation)
    refit_stop = _boundary(store, times <= t_test)
    stops = store.offsets[1:]
    validated = np.flatnonzero(refit_stop > train_stop)
    tested = np.flatnonzero(stops > refit_stop)
    for what, users in (("validation", validated), ("test", tested)):
        if not len(users):
            raise UserError(
                f"no user has an event in the {what} period of the global-time split "
                f"(T_val = {t_validation}, T = {t_test}); use --data.split leave-one-out"
            )
    return Split(
        name="global_time",
        train_stop=train_stop,
        refit_stop=refit_stop,
        validation=_cases(store, validated, refit_stop[validated] - 1, 0, repeats=repeats),
        test={
            "test": _cases(store, tested, stops[tested] - 1, 0, repeats=repeats),
            "test_first": _cases(store, tested, refit_stop[tested], 0, repeats=repeats),
        },
    )


def train_counts(store: SequenceStore, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`[V]`: how often each item occurs in the rows `offsets[u]:stop[u]`."""
    return np.bincount(
        store.tokens[in_training(store, stop)], minlength=store.catalog.num_rows
    ).astype(np.int64)


def first_days(store: SequenceStore, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """`[V]`: time of each item's first interaction in the rows `offsets[u]:stop[u]`.

    In days since 1970; 0 for items without an interaction there.
    """
    trained = in_training(store, stop)
    days = np.full(store.catalog.num_rows, np.inf)
    np.minimum.at(days, store.tokens[trained], store.timestamps[trained] / SECONDS_PER_DAY)
    return np.where(np.isfinite(days), days, 0).astype(np.float32)


def in_training(store: SequenceStore, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """`[N]`: true for the rows `offsets[u]:stop[u]`."""
    return covered(store.offsets[:-1], stop, store.num_interactions)


def _cases(
    store: SequenceStore,
    users: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    too_short: int,
    why_too_short: str = "fewer than 3 interactions",
    *,
    repeats: bool,
) -> Cases:
    """Cases for the given rows, except those that cannot be evaluated.

    Dropped are cases without a history and, unless `repeats`, those whose target is already in the
    history. `too_short` is the number of users that the caller left out, and `why_too_short` the
    reason.
    """
    has_history = rows > store.offsets[users]
    repeated = np.zeros(len(rows), bool)
    if not repeats:
        repeated = _seen_before(store, store.offsets[users], rows)
    keep = has_history & ~repeated
    dropped = {
        why_too_short: too_short,
        "no history before the target": int((~has_history).sum()),
        REPEATED: int(repeated.sum()),
    }
    return Cases(users[keep], rows[keep], {why: n for why, n in dropped.items() if n})


def _seen_before(
    store: SequenceStore, starts: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """`[M]`: whether the token of each row is among `tokens[start:row]`."""
    lengths, targets = rows - starts, store.tokens[rows]
    found = np.zeros(len(rows), bool)
    for part in in_parts(lengths, _ROWS_AT_ONCE):
        case = np.repeat(np.arange(part.start, part.stop), lengths[part])
        same = store.tokens[joined(starts[part], lengths[part])] == targets[case]
        found[case[same]] = True
    return found


def _quantile(times: npt.NDArray[np.int64], quantile: float) -> int:
    return int(np.quantile(times, quantile, method="lower"))


def _boundary(store: SequenceStore, before: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    counts = np.concatenate([[0], np.cumsum(before, dtype=np.int64)])
    return store.offsets[:-1] + counts[store.offsets[1:]] - counts[store.offsets[:-1]]
