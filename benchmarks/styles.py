"""Makes a log like that of a shop with tens of thousands of items, of which each has few events.

    bert4rec prepare ml-1m.txt --output data/ml-1m \\
        --min-user-interactions 1 --min-item-interactions 1
    python benchmarks/styles.py data/ml-1m shop.csv --variants 12 --share 0.25
    bert4rec prepare shop.csv --output data/shop --min-item-interactions 1

Real histories are cut into shoppers of 5 to 10 events each, as in `thin.py`. Every item comes in
variants, as products come in sizes and styles. A shopper has a style, some of which are more common
than others, and buys its variant of an item 7 times in 10, else any. So what a shopper buys depends
on the history in two ways: what goes with what, and the style. The same store gives the same file.
`shop.py` makes up what goes with what as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from thin import shoppers

from bert4rec_jax.data.batch import SECONDS_PER_DAY
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.outputs import whole_file

BEGIN, DAYS = 1_600_000_000, 180
OWN_STYLE = 0.7  # how often a shopper buys the variant of the own style


def main(
    store: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CSV")],
    variants: int = 24,
    share: float = 0.5,
    pieces: int = 40,
) -> None:
    """Make shoppers of a store's histories.

    Args:
      store: A folder made by `bert4rec prepare`.
      output: The log to write; items are called token_variant.
      variants: Number of variants of an item, and of styles.
      share: Share of the shoppers that are kept.
      pieces: The most shoppers that one history becomes.
    """
    source, generator = SequenceStore.open(store), np.random.default_rng(0)
    common = 1 / np.arange(1, variants + 1) ** 0.8
    common /= common.sum()
    lines = ["user_id,item_id,timestamp"]
    for name, rows in shoppers(source, generator, pieces):
        if generator.random() >= share:
            continue
        style = generator.choice(variants, p=common)
        time = BEGIN + int(generator.integers(0, DAYS * SECONDS_PER_DAY))
        for token in source.tokens[rows]:
            own = generator.random() < OWN_STYLE
            variant = style if own else generator.choice(variants, p=common)
            time += int(generator.integers(60, 5 * SECONDS_PER_DAY))
            lines.append(f"{name},{token}_{variant},{time}")
    with whole_file(output) as file:
        file.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    tyro.cli(main)
