"""Seen before: events held out from a run's training that an earlier run was trained on.

A run with `init_from` begins from the parameters of an earlier run. If its own split holds out
events that those parameters were trained on, a metric of them measures memory. Such cases are left
out of validation and test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.data.split import Cases, Split, in_training
from bert4rec_jax.data.store import SequenceStore

Rows = npt.NDArray[np.int64]

WHY = "the run that this one begins from was trained on the target"


@dataclass(frozen=True, eq=False)
class SeenBefore:
    """Rows of a store that an earlier run was trained on, and that this run holds out.

    Attributes:
      selected: `[n]`, those known to the model that validation selects.
      tested: `[m]`, those known to the model that is tested; the same unless the split refits.
    """

    selected: Rows
    tested: Rows

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SeenBefore:
        """From the values of `to_json`."""
        return cls(*(np.array(values[name], np.int64) for name in ("selected", "tested")))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"selected": self.selected.tolist(), "tested": self.tested.tolist()}

    def left_out(self, split: Split) -> Split:
        """The split without the cases whose targets were seen."""
        return replace(
            split,
            validation=_without(split.validation, self.selected),
            test={name: _without(cases, self.tested) for name, cases in split.test.items()},
        )


def seen_before(
    store: SequenceStore,
    split: Split,
    earlier: SequenceStore,
    earlier_split: Split,
    earlier_seen: SeenBefore | None,
    *,
    repeats: bool = False,
) -> SeenBefore:
    """Find the rows of a store outside training that an earlier run was trained on.

    Events are the same if user and item are. With `repeats`, the time has to be the same as well;
    without times in one of the logs, both have to be the user's first, second, ... event with the
    item.

    Args:
      store, split: of the run.
      earlier, earlier_split: of the run that it begins from: each of its models begins from the
        same one of that run, the selected from the selected and the refitted from the tested one.
      earlier_seen: what that run in turn had seen before.
      repeats: whether users are asked for items of their history, see `data.repeats`.
    """

    # Nobody is asked for an item of the history, unless items can be chosen again.
    asked = repeats | (_occurrences(store) == 0)

    def seen(stop: Rows, earlier_stop: Rows, more: Rows) -> Rows:
        held_out = np.flatnonzero(~in_training(store, stop) & asked)
        trained = in_training(earlier, earlier_stop)
        trained[more] = True
        return held_out[_among(store, held_out, earlier, np.flatnonzero(trained), repeats)]

    none = SeenBefore(np.zeros(0, np.int64), np.zeros(0, np.int64))
    before = earlier_seen or none
    selected = seen(split.train_stop, earlier_split.train_stop, before.selected)
    if not split.refits:
        return SeenBefore(selected, selected)
    tested = seen(split.refit_stop, earlier_split.refit_stop, before.tested)
    return SeenBefore(selected, tested)


def _among(
    store: SequenceStore, rows: Rows, earlier: SequenceStore, earlier_rows: Rows, repeats: bool
) -> npt.NDArray[np.bool_]:
    """`[n]`: whether the events in the given rows of a store are among those of an earlier one."""
    users: dict[str, int] = {}
    for number, user in enumerate(store.user_ids()):
        users.setdefault(user, number)  # cold items: a user may stand in several rows
    items = {item: FIRST_ITEM + i for i, item in enumerate(store.catalog.item_ids)}

    def keys(of: SequenceStore, rows: Rows) -> Rows:
        """`[n]`: one number per pair of user and item, negative if this store lacks one of them."""
        user_of = np.array([users.get(user, -1) for user in of.user_ids()], np.int64)
        token_of = np.full(of.catalog.num_rows, -1, np.int64)
        known = [items.get(item, -1) for item in of.catalog.item_ids]
        token_of[FIRST_ITEM : of.catalog.num_tokens] = known
        user = user_of[np.searchsorted(of.offsets, rows, side="right") - 1]
        token = token_of[of.tokens[rows]]
        return np.where((user < 0) | (token < 0), -1, user * store.catalog.num_rows + token)

    here, there = keys(store, rows), keys(earlier, earlier_rows)
    found = np.isin(here, there)
    if not repeats or not found.any():
        return found
    kept = np.isin(there, here[found])
    if store.timed and earlier.timed:
        when, then = store.timestamps, earlier.timestamps
    else:
        when, then = _occurrences(store), _occurrences(earlier)
    events = set(zip(there[kept].tolist(), then[earlier_rows[kept]].tolist()))
    asked = zip(here[found].tolist(), when[rows[found]].tolist())
    found[found] = [event in events for event in asked]
    return found


def _occurrences(store: SequenceStore) -> Rows:
    """`[N]`: the number of earlier events with the same item in the same history.

    Example: 0 0 1 0 2 for the history a b a c a.
    """
    histories = np.repeat(np.arange(len(store.offsets) - 1), np.diff(store.offsets))
    pairs = histories * store.catalog.num_rows + store.tokens
    order = np.argsort(pairs, kind="stable")
    ordered = pairs[order]
    begins = np.append(True, ordered[1:] != ordered[:-1])
    places = np.arange(len(pairs))
    numbers = np.empty(len(pairs), np.int64)
    numbers[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return numbers


def _without(cases: Cases, rows: Rows) -> Cases:
    seen = np.isin(cases.rows, rows)
    if not seen.any():
        return cases
    return replace(cases[~seen], dropped={**cases.dropped, WHY: int(seen.sum())})
