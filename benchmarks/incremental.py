"""Incremental training against training from scratch, on a time slice of MovieTweetings.

    python benchmarks/incremental.py runs/incremental

The earlier run is trained on the first 80 % of the interactions by time. On all interactions, one
run trains from scratch, one trains from scratch for fewer epochs, and one trains for the same few
epochs with `--init-from` the earlier run. Selection and figures are on validation (the last item
but one of each user). Prints one JSON line; run it again in the same folder to continue.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import tyro
from rich.console import Console

from bert4rec_jax.config import Config
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.data.store import SequenceStore, is_store, write_store
from bert4rec_jax.entry import tune_memory
from bert4rec_jax.experiment import protocol, recipes


def main(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    epochs: int = 36,
    more_epochs: int = 6,
    seed: int = 0,
) -> None:
    """Train four times.

    Args:
        folder: For data and runs.
        epochs: Of the earlier run and of the one from scratch.
        more_epochs: Of the run that begins from the earlier one.
        seed: Of all runs.
    """
    whole, early = folder / "whole", folder / "early"
    if not is_store(whole):
        prepare("movietweetings", whole)
    store = SequenceStore.open(whole)
    if not is_store(early):
        _write_slice(store, early)
    recipe = recipes.load("movietweetings", Path(__file__).parents[1] / "configs").config

    def run(name: str, data: Path, epochs: int, init_from: str = "") -> dict[str, Any]:
        config: Config = replace(
            recipe,
            data=replace(recipe.data, path=str(data)),
            training=replace(
                recipe.training, epochs=epochs, evaluate_every=max(1, epochs // 6), seed=seed
            ),
            evaluation=replace(recipe.evaluation, test=False, baselines=False),
            workdir=str(folder / f"{name}_{epochs}_{seed}"),
            init_from=init_from,
        )
        results = protocol.run(config, recipe=name, console=Console(stderr=True))
        return {
            "epochs": epochs,
            "seconds": results["seconds"]["training"],
            "ndcg@10": results["validation"]["BERT4Rec"]["ndcg@10"],
            "device": results["device"],
        }

    found = {"earlier": run("earlier", early, epochs)}
    found["scratch"] = run("scratch", whole, epochs)
    found["scratch_short"] = run("scratch", whole, more_epochs)
    begun = str(folder / f"earlier_{epochs}_{seed}")
    found["incremental"] = run("incremental", whole, more_epochs, begun)
    new = len(store.catalog) - len(SequenceStore.open(early).catalog)
    print(json.dumps({"new_items": new, "items": len(store.catalog), "seed": seed, **found}))


def _write_slice(store: SequenceStore, path: Path) -> None:
    """The first 80 % of the interactions by time, of users with at least three of them."""
    early = store.timestamps <= np.quantile(store.timestamps, 0.8)
    users = np.repeat(np.arange(store.num_users), store.lengths)
    early &= np.bincount(users, early, store.num_users)[users] >= 3
    catalog = store.catalog
    log = Interactions(
        users=users[early].astype(np.int32),
        items=(store.tokens[early] - 2).astype(np.int32),
        timestamps=store.timestamps[early],
        ratings=store.ratings[early],
        user_ids=pa.array(store.user_ids()),
        item_ids=pa.array(catalog.item_ids),
    )
    titles = dict(zip(catalog.item_ids, zip(catalog.titles, catalog.genres)))
    write_store(log.in_time_order(), path, titles=titles, source=store.manifest["source"])


if __name__ == "__main__":
    tune_memory()
    tyro.cli(main)
