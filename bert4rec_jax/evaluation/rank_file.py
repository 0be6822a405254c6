"""Rank file: the rank of every target by every model, and a description of the cases.

`ranks.npz`, of the test, and `validation_ranks.npz` hold plain arrays named SET/KEY. For each set
of M cases, these are the description of the cases (`CASE_ARRAYS`) and, under each model's name, its
ranks. Any metric can be computed from them, and two files show by themselves whether they are about
the same cases.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import numpy.typing as npt

from bert4rec_jax.checks import require_path
from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import write_arrays

RANKS = "ranks.npz"
VALIDATION_RANKS = "validation_ranks.npz"
VALIDATION = "validation"  # name of its only set
IDS = ("user_ids", "item_ids")  # external ids of the user and the target
ROWS = ("users", "rows", "targets")  # user and row in the store, and the target's token
DRAWN = "drawn_items"  # number of the target, where intervals draw target items instead of users
CASE_ARRAYS = (*ROWS, *IDS, DRAWN, "cases_sha256")
_TESTED = ("parameters_sha256", "corrections_sha256")

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class RankedSet:
    """One set of M cases.

    Attributes:
      cases: the known arrays of `CASE_ARRAYS`, `[M]` each; `cases_sha256` is a single string.
      ranks: model -> `[M]`; 1 is best.
    """

    cases: Mapping[str, Array]
    ranks: Mapping[str, Array]

    def __len__(self) -> int:
        return len(next(iter(self.ranks.values())))

    @property
    def sha256(self) -> str:
        """See `cases_sha256`; empty if unknown."""
        return str(self.cases.get("cases_sha256", ""))

    @property
    def drawn(self) -> str:
        """What the resamples of intervals draw: `users` or `items`, see `assessment.assess`."""
        return "items" if DRAWN in self.cases else "users"

    def in_order_of(self, other: RankedSet) -> RankedSet:
        """The same cases in the order of another set; itself if these are not the same cases.

        Cases are told apart by the ids of user and target. Sets that both have a `cases_sha256` are
        left as they are, and a reordered set has none.
        """
        if self.sha256 and other.sha256:  # these tell more than ids do
            return self
        if not set(IDS) <= self.cases.keys() & other.cases.keys() or len(self) != len(other):
            return self
        here, there = (
            list(zip(*(found.cases[name].tolist() for name in IDS))) for found in (self, other)
        )
        places = {case: place for place, case in enumerate(here)}
        if here == there or len(places) < len(here) or places.keys() != set(there):
            return self
        order = np.array([places[case] for case in there])

        def ordered(arrays: Mapping[str, Array]) -> dict[str, Array]:
            return {name: x[order] for name, x in arrays.items() if x.ndim}

        return RankedSet(ordered(self.cases), ordered(self.ranks))


@dataclass(frozen=True, eq=False)
class RankFile:
    """The ranks of a tested model and of the models it was compared with.

    Attributes:
      sets: sets of cases by name.
      parameters: SHA-256 of the tested parameters; empty if unknown.
      corrections: SHA-256 of the corrections added to the scores; empty if unknown.
    """

    sets: Mapping[str, RankedSet]
    parameters: str = ""
    corrections: str = ""

    @classmethod
    def of(
        cls,
        ranks: Mapping[str, Mapping[str, npt.NDArray[np.integer]]],
        sets: Mapping[str, Cases],
        store: SequenceStore,
        *,
        within: Mapping[str, npt.NDArray[np.int32]] | None = None,
        repeats: bool = False,
        drawn: Mapping[str, str] | None = None,
        parameters: str = "",
        corrections: str = "",
    ) -> RankFile:
        """Build a rank file from the ranks of models.

        Args:
          ranks: set of cases -> model -> `[M]`; 1 is best.
          sets: name -> cases.
          store: the data.
          within: set of cases -> the only tokens that were ranked.
          repeats: whether items of the history were ranked too.
          drawn: set of cases -> what the resamples of intervals draw; `users` for sets not in it.
          parameters, corrections: see the attributes.

        Raises:
          UserError: a model has one of the names in `CASE_ARRAYS`, or not a whole rank for each
            case.
        """
        users, items = store.user_ids(), store.catalog.item_ids
        found = {}
        for name, answers in ranks.items():
            cases, among = sets[name], (within or {}).get(name)
            check_names(answers)
            answers = {model: np.asarray(given) for model, given in answers.items()}
            targets = store.tokens[cases.rows]
            known: dict[str, Array] = {
                "users": cases.users.astype(np.int32),
                "rows": cases.rows,
                "targets": targets,
                "user_ids": np.array([users[user] for user in cases.users]),
                "item_ids": np.array([items[target - FIRST_ITEM] for target in targets]),
                "cases_sha256": np.array(cases_sha256(cases, store, within=among, repeats=repeats)),
            }
            if (drawn or {}).get(name) == "items":
                known[DRAWN] = np.unique(targets, return_inverse=True)[1].astype(np.int32)
            _check(Path(RANKS), name, RankedSet(known, answers))
            found[name] = RankedSet(known, {m: r.astype(np.int32) for m, r in answers.items()})
        return cls(found, parameters, corrections)

    @classmethod
    def read(cls, path: str | PathLike[str]) -> RankFile:
        """Read a file written by `write`, or by another program in the same format.

        Raises:
          UserError: the file cannot be read, or has another format.
        """
        path = require_path(path, "path")
        again = {
            RANKS: f"`bert4rec evaluate {path.parent}` makes the file of a run again",
            VALIDATION_RANKS: "the training command of the run with --evaluation.no-test makes it "
            "again",
        }.get(path.name, "save its arrays with numpy.savez, texts as text")
        if path.exists() and not is_zipfile(path):
            raise UserError(f"{path} is no .npz file; {again}")
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            sets = _sets(arrays)
        except (OSError, ValueError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise UserError(f"cannot read {path} ({error}); {again}") from None
        if not sets:
            raise UserError(
                f"{path} holds no ranks; expected arrays named SET/MODEL, such as test/popular, "
                f"beside SET/users or SET/user_ids; {again}"
            )
        for name, found in sets.items():
            _check(path, name, found)
        return cls(sets, *(str(arrays.get(name, "")) for name in _TESTED))

    def write(self, path: str | PathLike[str]) -> None:
        """Write the file.

        Raises:
          UserError: the file cannot be written.
        """
        arrays = {
            f"{name}/{key}": values
            for name, found in self.sets.items()
            for key, values in {**found.cases, **found.ranks}.items()
        }
        tested = zip(_TESTED, (self.parameters, self.corrections))
        write_arrays(
            require_path(path, "path"),
            {**arrays, **{name: np.array(value) for name, value in tested}},
        )

    def join(self, path: Path) -> None:
        """Write the file, with the other models of the file that is there if they belong to it.

        Only one process may do so at a time.

        Raises:
          UserError: the file cannot be written.
        """
        found = self
        with suppress(UserError):  # there is no earlier file, or it cannot be read
            found = self.joined(RankFile.read(path))
        found.write(path)

    def joined(self, earlier: RankFile) -> RankFile:
        """Add the other models of an earlier file, if parameters, corrections and cases match."""
        if (self.parameters, self.corrections) != (earlier.parameters, earlier.corrections):
            return self
        sets = {}
        for name, found in self.sets.items():
            before = earlier.sets.get(name)
            same = before is not None and before.sha256 == found.sha256
            kept = before.ranks if before is not None and same else {}
            others = {model: ranks for model, ranks in kept.items() if model not in found.ranks}
            sets[name] = replace(found, ranks={**found.ranks, **others})
        return replace(self, sets=sets)


def check_names(models: Mapping[str, Any]) -> None:
    """Check that no model has a name that rank files use for something else (`CASE_ARRAYS`).

    Raises:
      UserError: a model has; the message names it.
    """
    for name in models:
        if name in CASE_ARRAYS:
            raise UserError(
                f"a model is named {name!r}, under which {RANKS} keeps something else; choose a "
                f"name other than {', '.join(CASE_ARRAYS)}"
            )


def cases_sha256(
    cases: Cases,
    store: SequenceStore,
    *,
    within: npt.NDArray[np.int32] | None = None,
    repeats: bool = False,
) -> str:
    """SHA-256 over what is to be ranked for whom, except for the times and ratings of histories.

    It covers the users, histories and targets, in order, and the set of ranked items, all by their
    external ids. So equal cases in two different stores have the same hash.

    Args:
      cases: the cases.
      store: the data.
      within: the only tokens that are ranked; None for the whole catalog.
      repeats: whether items of the history are ranked too.
    """
    catalog = store.catalog
    hashes = np.zeros(catalog.num_rows, "<u8")
    for token, item in enumerate(catalog.item_ids, start=FIRST_ITEM):
        hashed = hashlib.blake2b(item.encode(), digest_size=8).digest()
        hashes[token] = int.from_bytes(hashed, "little")
    ranked = hashes[catalog.is_item()] if within is None else hashes[within]
    sha = hashlib.sha256(b"repeats" if repeats else b"")
    sha.update(np.sort(ranked).tobytes())
    ids = store.user_ids()
    for user, start, row in zip(cases.users, store.offsets[cases.users], cases.rows):
        sha.update(f"{ids[user]}\0{row - start}\0".encode())
        sha.update(hashes[store.tokens[start : row + 1]].tobytes())
    return sha.hexdigest()


def _sets(arrays: Mapping[str, Array]) -> dict[str, RankedSet]:
    names = dict.fromkeys(name.partition("/")[0] for name in arrays if "/" in name)
    sets = {}
    for name in names:
        own = {key.partition("/")[2]: arrays[key] for key in arrays if key.startswith(f"{name}/")}
        known = {
            key: own[key].astype(str) if key in IDS else own[key]
            for key in CASE_ARRAYS
            if key in own
        }
        sets[name] = RankedSet(known, {key: own[key] for key in own if key not in CASE_ARRAYS})
    return sets


def _check(path: Path, name: str, found: RankedSet) -> None:
    """Check the format of a set that was read; `UserError` if it is wrong."""
    known = {key: values for key, values in found.cases.items() if key != "cases_sha256"}
    if not found.ranks or not known.keys() & {ROWS[0], IDS[0]}:
        raise UserError(
            f"{path} holds {', '.join((*found.cases, *found.ranks))} of {name!r}; expected the "
            "ranks of a model, and users or user_ids"
        )
    arrays = {**known, **found.ranks}
    for key, values in arrays.items():
        if values.ndim != 1 or not len(values):
            raise UserError(
                f"{path}: {name}/{key} has shape {values.shape}; expected a value for each of one "
                "case or more"
            )
    for key, values in arrays.items():
        if values.shape != (len(found),):
            raise UserError(
                f"{path}: {name}/{key} has shape {values.shape}; expected {(len(found),)}, a value "
                "per case"
            )
    for model, ranks in found.ranks.items():
        if ranks.dtype.kind not in "iu" or ranks.min() < 1:
            lowest = f" from {ranks.min()}" if ranks.dtype.kind in "iuf" else ""
            raise UserError(
                f"{path}: {name}/{model} holds {ranks.dtype}{lowest}; expected whole ranks from 1, "
                "the best"
            )
