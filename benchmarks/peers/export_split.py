"""Export a split as plain arrays, so that other libraries can be evaluated on the same cases.

    python benchmarks/peers/export_split.py runs/peers/leave_one_out.npz --split leave-one-out

Runs in this package's environment. The file holds the whole log in the package's order, where
training ends, the evaluation cases, and the genres and decade of each item; reading it needs only
NumPy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console

from bert4rec_jax.config import Config, DataConfig
from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.experiment.opening import open_setting
from bert4rec_jax.features.movie import movies_of
from bert4rec_jax.outputs import write_arrays


def main(
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="NPZ")],
    split: Literal["leave-one-out", "global-time"] = "leave-one-out",
    path: str = "movietweetings",
) -> None:
    """Export a split.

    Args:
        output: The file to write.
        split: Which one, with the package's default settings.
        path: The data, as in `--data.path`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    config = Config(data=DataConfig(path=path, split=split), workdir=str(output.with_suffix("")))
    setting = open_setting(config, Console())
    store, asked = setting.store, setting.split
    arrays = {
        "item_ids": np.array(store.catalog.item_ids),
        "offsets": np.asarray(store.offsets),
        "items": store.tokens - FIRST_ITEM,
        "timestamps": np.asarray(store.timestamps),
        "train_stop": asked.train_stop,
        "refit_stop": asked.refit_stop,
        "facts": np.array(
            [
                (str(item), feature, value)
                for item, movie in enumerate(movies_of(store.catalog))
                for feature, value in [
                    *[("genre", genre) for genre in movie.genres],
                    *([("decade", str(movie.year // 10))] if movie.year else []),
                ]
            ],
            dtype=np.str_,
        ).reshape(-1, 3),
    }
    for name, cases in {"validation": asked.validation, **setting.tested()}.items():
        arrays[f"{name}/users"] = cases.users
        arrays[f"{name}/rows"] = cases.rows
    write_arrays(output, arrays)


if __name__ == "__main__":
    tyro.cli(main)
