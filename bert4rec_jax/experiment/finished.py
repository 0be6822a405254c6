"""Finished runs: their best checkpoints, and what calibration adds to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from bert4rec_jax.experiment.corrections import Corrections, read_corrections
from bert4rec_jax.experiment.opening import reopen
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.training.checkpoints import Checkpoint, read_config
from bert4rec_jax.training.fit import load_best

REFIT = "refit"  # where a run keeps the model that was trained anew after selection
FINAL = "final"  # and the one that was trained on all events, for serving


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that was trained, perhaps not to its end.

    Attributes:
      setting: what it is about.
      best: the checkpoint to use.
      trained: `[V]`, the items that it was trained on.
      validations: of its selection, in order.
      corrections: what calibration adds to biases.
      all_events: whether it was trained on the events of validation and test too.
    """

    setting: Setting
    best: Checkpoint
    trained: npt.NDArray[np.bool_]
    validations: list[dict[str, float]]
    corrections: Corrections
    all_events: bool = False

    def variables(self) -> dict[str, Any]:
        """The model's collections: `params`, and `catalog` where items have content."""
        return self.setting.variables(self.best.state.params, self.trained, self.corrections)


def open_finished(workdir: Path, console: Console) -> FinishedRun:
    """The best checkpoint of a run; the refitted one where the split asks for it and it is there.

    Raises:
      UserError: the folder holds no checkpoint that can be read; or see `reopen`.
    """
    setting = reopen(workdir, console)
    split = setting.split
    selected = load_selected(setting, console)
    refitted = _load_whole(setting, REFIT, selected.step, console) if split.refits else None
    best, stop = (selected, split.train_stop) if refitted is None else (refitted, split.refit_stop)
    corrections = _corrections(setting, best.state.params, stop)
    covisitation = setting.config.calibration.covisitation
    if corrections is None and (split.refits or covisitation):
        console.print(
            f"[yellow]{workdir} was stopped before its calibration: nothing is added to the scores "
            "of the model; the same training command finishes it",
            highlight=False,
        )
    return FinishedRun(
        setting,
        best,
        setting.trained(stop),
        selected.record.validations,
        corrections or Corrections(),
    )


def as_selected(finished: FinishedRun, console: Console) -> FinishedRun:
    """The model that validation chose, as validation cases are asked of it.

    Where the split trains anew after selection, the tested model has seen these cases.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    setting, stop = finished.setting, finished.setting.split.train_stop
    if not setting.split.refits:
        return finished
    corrections = _corrections(setting, finished.best.state.params, stop)
    return replace(
        finished,
        best=load_selected(setting, console),
        trained=setting.trained(stop),
        corrections=corrections or Corrections(),
    )


def as_served(finished: FinishedRun, console: Console) -> FinishedRun:
    """The model that was trained on all events, if the run has one; else the tested one.

    Raises:
      UserError: its folder holds checkpoints of which none can be read.
    """
    setting = finished.setting
    best = _load_whole(setting, FINAL, finished.best.step, console)
    if best is None:
        return finished
    stop = setting.store.offsets[1:]
    corrections = _corrections(setting, finished.best.state.params, stop)
    return replace(
        finished,
        best=best,
        trained=setting.trained(stop),
        corrections=corrections or Corrections(),
        all_events=True,
    )


def load_selected(setting: Setting, console: Console) -> Checkpoint:
    """The checkpoint that validation chose, also where another one was refitted after it.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    return _load(setting, Path(setting.config.workdir), console)


def _corrections(setting: Setting, params: Any, stop: npt.NDArray[np.int64]) -> Corrections | None:
    """What calibration of tested parameters adds to a model of the rows `offsets[u]:stop[u]`."""
    workdir = Path(setting.config.workdir)
    return read_corrections(workdir, params, store=setting.store, stop=stop, length=setting.length)


def _load_whole(setting: Setting, name: str, steps: int, console: Console) -> Checkpoint | None:
    """The model that was trained anew for `steps` in a folder of the run, if it came to its end."""
    folder = Path(setting.config.workdir) / name
    if read_config(folder / "checkpoints") is None:
        return None
    found = _load(setting, folder, console)
    if found.step == steps:
        return found
    console.print(
        f"[yellow]{folder} was stopped at step {found.step:,} of {steps:,}, so this is the model "
        "that was trained before it, on fewer events; the same training command finishes the other",
        highlight=False,
    )
    return None


def _load(setting: Setting, folder: Path, console: Console) -> Checkpoint:
    return load_best(
        setting.config,
        setting.training_data,
        mesh=setting.mesh,
        folder=folder,
        warn=lambda text: console.print(f"[yellow]{text}; taking another one"),
    )
