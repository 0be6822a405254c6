"""Weights & Biases: one W&B run per training folder, continued when the training continues."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from bert4rec_jax.errors import UserError

_FILE = "wandb_id.txt"  # in the training folder: the id of its W&B run


def require_wandb() -> None:
    """Check, before any work is done, that W&B is installed.

    Raises:
      UserError: it is not.
    """
    try:
        import wandb  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(
            f"log.wandb needs {error.name}, which is not installed; "
            "pip install 'bert4rec-jax[wandb]'"
        ) from error


def open_run(project: str, folder: Path, config: dict[str, Any], *, fresh: bool) -> Any:
    """Start the W&B run of a training folder, or continue it.

    Weights & Biases ignores values for steps that are not newer than its last one. So steps that
    are repeated after an interruption, with the same values, are not logged twice.

    Args:
      project: the W&B project.
      folder: folder of the training; the id of the W&B run is kept in it.
      config: all settings, shown with the run.
      fresh: start a new W&B run, whatever ran in the folder before.

    Returns:
      The `wandb.Run`.

    Raises:
      UserError: the extra is not installed, or Weights & Biases refuses (no login, no network, a
        name that it does not allow).
    """
    require_wandb()
    import wandb

    file = folder / _FILE
    known = file.is_file() and not fresh
    identity = file.read_text(encoding="utf-8") if known else secrets.token_hex(4)
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
    except (wandb.Error, ValueError) as error:
        if "project name" in str(error):
            way_out = "choose another name with --log.wandb"
        elif isinstance(error, ValueError):
            way_out = "correct the WANDB_ variables of the environment"
        else:
            way_out = (
                "`wandb login` first, or set WANDB_MODE=offline to keep it here and send it later "
                "with `wandb sync`"
            )
        raise UserError(
            f"Weights & Biases refused the run of {folder} ({error}); {way_out}"
        ) from error
    file.write_text(identity, encoding="utf-8")
    return run
