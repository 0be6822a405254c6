"""Requirements: what settings ask of a log, and what a finished run asks of its folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bert4rec_jax.config import Config
from bert4rec_jax.data.named import NAMES
from bert4rec_jax.data.store import SequenceStore, is_store
from bert4rec_jax.errors import UserError


def check_log(config: Config, store: SequenceStore) -> None:
    """Check that a log has what the settings read.

    Raises:
      UserError: it has no times, times before 1970 or no ratings.
    """
    if config.model.times and not store.timed:
        raise UserError(
            f"model.times is on, but {store.path} has no timestamps; prepare the log with its "
            "column of times, or leave it off"
        )
    if config.model.times and store.timestamps.min() < 0:
        raise UserError(
            f"model.times is on, but {store.path} has times before 1970; leave it off, or prepare "
            "the log without these events"
        )
    if config.reads_thumbs and not np.isfinite(store.ratings).any():
        raise UserError(
            "thumbs are read (data.targets liked, model.thumbs, or weights by thumb in masking), "
            f"but {store.path} has no ratings; prepare the log with its column of ratings, or "
            "leave thumbs out"
        )


def require_inputs(config: Config, workdir: Path) -> None:
    """Refuse a run whose inputs are missing, such as when it was trained in another folder.

    Raises:
      UserError: an input path in the config does not exist (a relative one is looked up from the
        current folder), and the run keeps no copy of that input.
    """
    kept = {"path": is_store(workdir / "data") or config.data.path in NAMES}
    kept["content"] = config.data.content == "catalog"
    for name in ("path", "content", "users"):
        given = str(getattr(config.data, name))
        if given and not (kept.get(name) or Path(given).exists()):
            raise UserError(
                f"{workdir} was trained with data.{name} {given}, which does not exist as seen "
                f"from {Path.cwd()}; run this in the folder that the training ran in, put it back, "
                f"or, if it was moved, run the training command with --data.{name} NEW_PLACE first"
            )
