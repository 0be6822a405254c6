"""Weights & Biases: one W&B run per training folder, continued when the training continues."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
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


class WandbRun:
    """A sink of the training log that starts the W&B run of a folder, or continues it.

    Weights & Biases ignores values for steps that are not newer than its last one. So steps that
    are repeated after an interruption, with the same values, are not logged twice.

    Args:
      project: the W&B project.
      folder: folder of the training, made if it does not exist; it keeps the id of the W&B run.
      config: all settings, shown with the run.
      fresh: start a new W&B run, whatever ran in the folder before.
    """

    def __init__(
        self, project: str, folder: Path, config: Mapping[str, Any], *, fresh: bool
    ) -> None:
        self._project, self._folder, self._config = project, folder, config
        self._fresh = fresh

    def __enter__(self) -> WandbRun:
        """Start or continue the run.

        Raises:
          UserError: the extra is not installed, or Weights & Biases refuses (no login, no network,
            a name that it does not allow).
        """
        require_wandb()
        import wandb

        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / _FILE
        known = file.is_file() and not self._fresh
        identity = file.read_text(encoding="utf-8") if known else secrets.token_hex(4)
        try:
            self._run = wandb.init(
                project=self._project,
                id=identity,
                name=self._folder.name,
                dir=str(self._folder),
                config=dict(self._config),
                resume="allow",
                settings=wandb.Settings(quiet=True),  # no W&B summary between our results tables
            )
        except (wandb.Error, ValueError) as error:
            raise UserError(
                f"Weights & Biases refused the run of {self._folder} ({error}); {_way_out(error)}"
            ) from error
        file.write_text(identity, encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run.finish(exit_code=0 if error is None else 1)

    def write(self, step: int, line: Mapping[str, Any], scalars: Mapping[str, float]) -> None:
        """Send the scalars."""
        self._run.log(dict(scalars), step=step)


def _way_out(error: Exception) -> str:
    if "project name" in str(error):
        return "choose another name with --log.wandb"
    if isinstance(error, ValueError):
        return "correct the WANDB_ variables of the environment"
    return (
        "`wandb login` first, or set WANDB_MODE=offline to keep it here and send it later with "
        "`wandb sync`"
    )
