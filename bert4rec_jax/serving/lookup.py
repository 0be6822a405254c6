"""Lookup: finds the item of a catalog that a person means by a typed title or id."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog, name_and_year
from bert4rec_jax.errors import UserError

_CLOSE = 0.8  # least difflib ratio of a title that may be meant
_CLEARLY = 0.05  # least difference of its ratio to that of the next title
_SHOWN = 5


def find_item(catalog: Catalog, text: str) -> int:
    """The token of the item that a text means.

    It is the first of these that fits: an external id; a title; a title, ignoring case; a title
    without its year, ignoring case; the closest title by `difflib`, if it is clearly closest and of
    no other year. An item without a title is called by its id, and is never taken for another one.

    Raises:
      UserError: no title fits, or several do; it lists the nearest ones with their ids.
    """
    if text in catalog:
        return catalog.token(text)
    wanted = _plain(text)
    plain = [_plain(title) for title in catalog.titles]
    for name, names in (
        (text, list(catalog.titles)),
        (wanted, plain),
        (wanted, [name_and_year(title)[0] for title in plain]),
    ):
        equal = [i for i, title in enumerate(names) if title == name]
        if len(equal) == 1:
            return FIRST_ITEM + equal[0]
        if equal:
            raise UserError(
                f"{text!r} is the title of {len(equal)} items; say which by its id:"
                f"{_listed(catalog, equal)}"
            )
    ratios = _ratios(wanted, plain)
    nearest = sorted(range(len(plain)), key=lambda i: (-ratios[i], i))[:_SHOWN]
    best = ratios[nearest[0]]
    rival = ratios[nearest[1]] if len(nearest) > 1 else 0.0
    found = nearest[0]
    titled = catalog.titles[found] != catalog.item_ids[found]
    clear = best >= _CLOSE and best - rival >= _CLEARLY
    if clear and titled and _of_one_year(wanted, plain[found]):
        return FIRST_ITEM + found
    raise UserError(
        f"no title is clearly {text!r}; the nearest are (give a title in full, or an id):"
        f"{_listed(catalog, nearest)}"
    )


def _ratios(wanted: str, titles: list[str]) -> list[float]:
    """The `difflib` ratio of each title to the wanted one, in [0, 1], both without their years."""
    matcher = difflib.SequenceMatcher(autojunk=False)
    matcher.set_seq2(name_and_year(wanted)[0])

    def ratio(title: str) -> float:
        matcher.set_seq1(name_and_year(title)[0])
        return matcher.ratio()

    return [ratio(title) for title in titles]


def _of_one_year(title: str, other: str) -> bool:
    years = {name_and_year(title)[1], name_and_year(other)[1]} - {None}
    return len(years) < 2


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _listed(catalog: Catalog, items: Iterable[int]) -> str:
    rows = [f"\n  {catalog.titles[i]}  (id {catalog.item_ids[i]})" for i in list(items)[:_SHOWN]]
    return "".join(rows)
