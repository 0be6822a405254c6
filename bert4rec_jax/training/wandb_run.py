"""Weights & Biases: a run there for each folder of a training, continued when that is continued."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from bert4rec_jax.errors import UserError

_FILE = "wandb_id.txt"  # in the folder: the id of its run


def open_run(project: str, folder: Path, config: dict[str, Any]) -> Any:
    """Begin the run of a folder, or continue it.

    Weights & Biases passes over what is not newer than its last step. So steps that are done again
    after an interruption, which are the same ones, are not there twice.

    Args:
      project: where the run is listed.
      folder: of the training; keeps the id of the run.
      config: all settings, shown beside the run.

    Returns:
      The `wandb.Run`.

    Raises:
      UserError: the extra is not installed, or Weights & Biases refuses (no login, no network).
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError(
            f"log.wandb needs {error.name}, which is not installed; "
            "pip install 'bert4rec-jax[wandb]'"
        ) from error
    file = folder / _FILE
    identity = file.read_text(encoding="utf-8") if file.is_file() else secrets.token_hex(4)
    try:
        run = wandb.init(
            project=project,
            id=identity,
            name=folder.name,
            dir=str(folder),
            config=config,
            resume="allow",
            settings=wandb.Settings(quiet=True),  # no summary among the tables of results
        )
    except wandb.Error as error:
        raise UserError(
            f"Weights & Biases refused the run of {folder} ({error}); `wandb login` first, or set "
            "WANDB_MODE=offline to keep it here and send it later with `wandb sync`"
        ) from error
    file.write_text(identity, encoding="utf-8")
    return run
