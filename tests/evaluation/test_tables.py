"""Tables on the terminal."""

import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from bert4rec_jax.evaluation.evaluator import Ranking
from bert4rec_jax.evaluation.tables import recommendations_table


def test_long_titles_are_cut_and_stay_in_one_paragraph(five):
    """The last user has a, and is asked for e; d and e are recommended, e on rank 2."""
    store = five.store
    long = "[bold] " + 30 * "word " + "end"
    titles = dict(zip(store.catalog.item_ids, store.catalog.titles)) | {
        "a": "Two\nlines  of [/red]",
        "e": long,
    }
    catalog = replace(store.catalog, titles=tuple(titles.values()))
    top = np.array([[five.token("d"), five.token("e"), *[0] * 8]], np.int32)
    console = Console(file=io.StringIO(), width=250)
    ranking = Ranking(np.array([2]), top)
    console.print(recommendations_table(five.case(4, 1), ranking, store, catalog))
    cells = [line.split("│")[2:5] for line in console.file.getvalue().splitlines() if "│" in line]
    shown = [[cell.strip() for cell in row] for row in cells]
    cut = "[bold] word word word word word word word word word word wo…"
    assert shown == [["Two lines of [/red]", "d", cut], ["", cut, "rank 2 of 5"]]
    assert len(cut) == 60
