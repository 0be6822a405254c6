"""Explanation display: why an item is recommended, as tables in a terminal and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.errors import UserError
from bert4rec_jax.outputs import whole_file
from bert4rec_jax.serving.arguments import Facts
from bert4rec_jax.serving.explanation import (
    BothSides,
    Explanation,
    both_sides,
    explain,
    require_both_sides,
)
from bert4rec_jax.serving.lookup import find_item
from bert4rec_jax.serving.picture import picture
from bert4rec_jax.serving.scorer import load


def show_explanation(
    bundle: Path,
    history: Sequence[str],
    item: str | None,
    masked: str | None,
    output: Path | None,
    user: Facts | None = None,
    request_time: str | None = None,
) -> None:
    """Print why an item is recommended, and guesses at a hidden item of the history.

    Args:
      bundle: a folder made by `bert4rec export`.
      history: titles or ids, oldest first.
      item: title or id of the item to explain; None for the first recommendation.
      masked: the item of the history to hide; None for the middle one of those that are read.
      output: SVG file of the picture; None for none.
      user: the user's features, for a model that uses them.
      request_time: as for `Scorer.rank`.

    Raises:
      UserError: see `Bundle.open`, `find_item`, `explain` and `both_sides`.
    """
    scorer = load(bundle)
    catalog = scorer.catalog
    seen = [_item_id(catalog, title) for title in history]
    wanted = None if item is None else _item_id(catalog, item)
    near = range(max(len(seen) - scorer.bundle.max_length, 0), len(seen))
    read = [place for place in near if scorer.bundle.known[catalog.token(seen[place])]]
    place = read[len(read) // 2] if read else 0
    if masked is not None:
        require_both_sides(scorer)
        hidden = _item_id(catalog, masked)
        if hidden not in seen:
            raise UserError(f"{masked!r} is not in the history; --masked hides one of its items")
        place = len(seen) - 1 - seen[::-1].index(hidden)  # of several, the one that is read
        if place not in near:
            raise UserError(
                f"{masked!r} is not among the last {len(near)} items of the history, which are "
                "those that the model reads; --masked hides one of them"
            )
    explanation = explain(scorer, seen, wanted, user=user, request_time=request_time)
    console = Console()
    console.print(explanation_table(explanation))
    if explanation.reads_mask and (masked is not None or len(read) >= 3):
        guesses = both_sides(scorer, seen, place, request_time=request_time)
        console.print(both_sides_table(guesses))
    if output is not None:
        with whole_file(output) as file:
            file.write(picture(explanation).encode())
        console.print(f"Written: {escape(str(output))}", highlight=False, soft_wrap=True)


def explanation_table(explanation: Explanation) -> Table:
    """One row per item of the history, oldest first."""
    layers = len(explanation.attention)
    table = Table(
        title=f"why {escape(explanation.title)}: {explanation.place}, "
        f"probability {explanation.probability:.2%}",
        caption="with the item, less without it; attention says where heads look, not why",
        title_justify="left",
    )
    table.add_column("history", overflow="fold")
    for name in ("log-probability", "score", "place without"):
        table.add_column(name, justify="right")
    for layer in range(layers):
        table.add_column(f"layer {layer + 1}: attention\nof each head, %", justify="right")
    shares = [_shares(explanation, column) for column in range(explanation.attention.shape[2])]
    unread = [influence for influence in explanation.influences if not influence.read]
    if unread:
        table.add_row(
            f"({len(unread)} not read: earlier, or unknown to the model)",
            *["0"] * 2,
            "",
            *[""] * layers,
        )
    read = [influence for influence in explanation.influences if influence.read]
    for influence, columns in zip(read, shares):
        table.add_row(
            escape(influence.title),
            f"{influence.log_probability:+.3f}",
            f"{influence.score:+.3f}",
            f"{influence.rank_without:,}",
            *columns,
        )
    if explanation.reads_mask:
        table.add_row("(the place itself)", "", "", "", *shares[-1])
    return table


def both_sides_table(found: BothSides) -> Table:
    """The guesses at a hidden item, without and with the items after it."""
    table = Table(
        title=f"hidden: {escape(found.title)}", title_justify="left", caption="its likeliest items"
    )
    guesses = (found.before, found.both)
    for name, guess in zip(("from what came before", "and from what came after"), guesses):
        table.add_column(
            f"{name}:\nplace {guess.rank:,}, probability {guess.probability:.2%}", overflow="fold"
        )
    named = (zip(g.likeliest.item_ids, g.likeliest.titles) for g in guesses)
    for row in zip(*named):
        table.add_row(
            *(f"[bold]{escape(t)}[/]" if i == found.item_id else escape(t) for i, t in row)
        )
    return table


def _shares(explanation: Explanation, column: int) -> list[str]:
    """One text per layer: the attention of its heads to a column, in per cent."""
    return [
        " ".join(f"{100 * weight:3.0f}" for weight in heads)
        for heads in explanation.attention[:, :, column]
    ]


def _item_id(catalog: Catalog, title: str) -> str:
    return catalog.item_id(find_item(catalog, title))
