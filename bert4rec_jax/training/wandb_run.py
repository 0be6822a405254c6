"""Weights & Biases: one W&B run per training folder, continued when the training continues."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from bert4rec_jax.errors import UserError

_FILE = "wandb_id.txt"  # in the training folder: the id of its W&B run


def open_run(project: str, folder: Path, config: dict[str, Any]) -> Any:
    """Start the W&B run of a training folder, or continue it.

    Weights & Biases ignores values for steps that are not newer than its last one. So steps that
    are repeated after an interruption, with the same values, are not logged twice.

    Args:
      project: the W&B project.
      folder: folder of the training; the id of the W&B run is kept in it.
      config: all settings, shown with the run.

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
            settings=wandb.Settings(quiet=True),  # no W&B summary between our results tables
        )
    except wandb.Error as error:
        raise UserError(
            f"Weights & Biases refused the run of {folder} ({error}); `wandb login` first, or set "
            "WANDB_MODE=offline to keep it here and send it later with `wandb sync`"
        ) from error
    file.write_text(identity, encoding="utf-8")
    return run
