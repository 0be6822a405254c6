"""Cold items: items held out of all training histories, and evaluation cases that ask for them.

A fifth of the catalog, stratified by popularity, is removed from all histories: half of it for
validation, half for test. The target of a case is a user's last cold item of that half; its history
is all warm (not held-out) items before the target. So that every model and baseline is evaluated as
under any other split, the rows are rearranged: first the warm rows of each user, then one more
"user" per case.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.data.ranges import joined
from bert4rec_jax.data.split import Cases, Split, last_row, leave_one_out
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError

STRATUM = 10  # items of similar popularity; one is drawn for validation and one for test
_SEED = 0  # fixed, so that all runs on the same data hold out the same items


@dataclass(frozen=True)
class ColdItems:
    """Which items are held out.

    Attributes:
      validation: `[V]`: mask of the cold items that are the targets of validation.
      test: `[V]`: mask of the cold items that are the targets of the test.
    """

    validation: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]

    @property
    def either(self) -> npt.NDArray[np.bool_]:
        """`[V]`: mask of all held-out items, which training never sees."""
        return self.validation | self.test


@dataclass(frozen=True)
class Arrangement:
    """Rows of a store: the warm histories of its U users, then a history and target per case.

    Attributes:
      rows: `[N]` row indices of the store.
      offsets: `[U + M1 + M2 + 1]`: where the rows of each user, then of each case, begin.
      users: `[U + M1 + M2]`: index in the store of the user that they belong to.
      sizes: M1 and M2, the numbers of validation and test cases.
      dropped: for validation and test, the number of users without a case, by reason.
    """

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    users: npt.NDArray[np.int64]
    sizes: tuple[int, int]
    dropped: tuple[dict[str, int], dict[str, int]]


def choose_cold(store: SequenceStore) -> ColdItems:
    """Draw the cold items: of ten items of similar popularity, one for validation, one for test.

    Popularity is the number of interactions in the whole store; ties are in random order. The last
    stratum may have fewer than ten items; then one or both of its draws may find none.
    """
    catalog = store.catalog
    generator = np.random.default_rng(_SEED)
    counts = np.bincount(store.tokens, minlength=catalog.num_rows)[catalog.is_item()]
    by_popularity = np.lexsort((generator.random(len(counts)), -counts))
    strata = -(-len(counts) // STRATUM)
    drawn = generator.permuted(np.tile(np.arange(STRATUM), (strata, 1)), axis=1)[:, :2]
    places = drawn + STRATUM * np.arange(strata)[:, None]

    def mask(half: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        chosen = np.zeros(catalog.num_rows, bool)
        chosen[FIRST_ITEM + by_popularity[half[half < len(counts)]]] = True
        return chosen

    return ColdItems(mask(places[:, 0]), mask(places[:, 1]))


def arrange(store: SequenceStore, cold: ColdItems) -> Arrangement:
    """Remove the cold items from all histories, and make a case of each user's last one per half.

    Raises:
      UserError: for one of the halves, no user has a cold item with a warm one before it.
    """
    starts, stops = np.asarray(store.offsets[:-1]), np.asarray(store.offsets[1:])
    warm = ~cold.either[store.tokens]
    before = np.concatenate([[0], np.cumsum(warm)])  # warm rows before each row
    warm_rows = np.flatnonzero(warm)
    pieces, sizes = [warm_rows], [before[stops] - before[starts]]
    users = [np.arange(store.num_users)]
    dropped = []
    for name, half in (("validation", cold.validation), ("test", cold.test)):
        last = last_row(half[store.tokens], starts, stops)
        length = np.where(last >= 0, before[last] - before[starts], 0)
        asked = np.flatnonzero(length > 0)
        if not len(asked):
            raise UserError(
                f"no user has a cold item of {name} after a warm one: {store.num_users:,} users "
                f"and {len(store.catalog):,} items are too few for --data.split cold-items"
            )
        reasons = {"no cold item": last < 0, "no warm item before it": (last >= 0) & (length == 0)}
        dropped.append({why: int(which.sum()) for why, which in reasons.items() if which.any()})
        size = length[asked] + 1
        ends = np.cumsum(size)
        rows = np.empty(int(ends[-1]), np.int64)
        is_target = np.zeros(len(rows), bool)
        is_target[ends - 1] = True
        rows[is_target] = last[asked]
        rows[~is_target] = warm_rows[joined(before[starts[asked]], size)[~is_target]]
        pieces.append(rows)
        sizes.append(size)
        users.append(asked)
    return Arrangement(
        rows=np.concatenate(pieces),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64),
        users=np.concatenate(users),
        sizes=(len(users[1]), len(users[2])),
        dropped=(dropped[0], dropped[1]),
    )


def cold_items(
    store: SequenceStore, arrangement: Arrangement, cold: ColdItems, *, repeats: bool = False
) -> Split:
    """The split with cases for the cold items, and leave-one-out for the warm ones.

    Model selection uses warm targets. `cold_validation` serves settings that warm targets say
    nothing about, such as the score offset of cold items. Test sets: `test_warm`; `test_cold`,
    ranked in the whole catalog; `test_cold_only`, the same cases ranked among the cold items of the
    test; `test_all`, warm and cold cases together.

    Args:
      store: the arranged rows.
      arrangement: how they were arranged.
      cold: which items are cold.
      repeats: also keep warm cases whose target is already in the history.
    """
    first = len(arrangement.users) - sum(arrangement.sizes)
    warm = leave_one_out(store, users=first, repeats=repeats)
    users = np.arange(first, store.num_users)
    rows = np.asarray(store.offsets[1:])[first:] - 1
    middle = arrangement.sizes[0]
    test_cold = Cases(users[middle:], rows[middle:], arrangement.dropped[1])
    test_warm = warm.test["test"]
    return Split(
        name="cold_items",
        train_stop=warm.train_stop,
        refit_stop=warm.refit_stop,
        validation=warm.validation,
        test={
            "test_warm": test_warm,
            "test_cold": test_cold,
            "test_cold_only": Cases(test_cold.users, test_cold.rows, {}),
            "test_all": Cases(
                np.concatenate([test_warm.users, test_cold.users]),
                np.concatenate([test_warm.rows, test_cold.rows]),
                {},
            ),
        },
        within={"test_cold_only": np.flatnonzero(cold.test).astype(np.int32)},
        cold_validation=Cases(users[:middle], rows[:middle], arrangement.dropped[0]),
    )
