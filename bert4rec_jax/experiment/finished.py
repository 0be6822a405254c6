"""Finished runs: their best checkpoints, and the corrections of their scores."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.experiment.corrections import Corrections, read_corrections
from bert4rec_jax.experiment.opening import reopen
from bert4rec_jax.experiment.setting import FittedModel, Setting
from bert4rec_jax.training.checkpoints import Checkpoint
from bert4rec_jax.training.inputs import Trained
from bert4rec_jax.training.restore import load_best
from bert4rec_jax.training.run_record import read_config

REFIT = "refit"  # folder in the workdir: the model that was retrained after selection
FINAL = "final"  # folder in the workdir: the model that was trained on all events, for serving


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A run that was trained, perhaps not to its end, and the model to use from it.

    Attributes:
      setting: the run's config, devices, data and split.
      best: the checkpoint to use.
      trained: what the checkpoint was trained on.
      corrections: what calibration adds to the model's scores.
      all_events: whether the checkpoint was trained on the events of validation and test too.
    """

    setting: Setting
    best: Checkpoint
    trained: Trained
    corrections: Corrections
    all_events: bool = False

    @property
    def fitted(self) -> FittedModel:
        """The model."""
        return FittedModel(self.best.state.params, self.trained, self.corrections)

    def variables(self) -> dict[str, Any]:
        """The model's variable collections; see `Setting.variables`."""
        return self.setting.variables(self.best.state.params, self.trained, self.corrections)


def open_finished(workdir: Path, console: Console) -> FinishedRun:
    """Open a run with its best checkpoint, or the refitted one where the split refits and it ended.

    Raises:
      UserError: the folder holds no checkpoint that can be read; or see `reopen`.
    """
    setting = reopen(workdir, console)
    split = setting.split
    selected = load_selected(setting, console)
    refitted = _load_whole(setting, REFIT, selected.step, console) if split.refits else None
    best, stop = (selected, split.train_stop) if refitted is None else (refitted, split.refit_stop)
    corrections = _corrections(setting, best.state.params, stop)
    if corrections is None and setting.calibrates:
        console.print(
            f"[yellow]{escape(str(workdir))} was stopped before its calibration: nothing is added "
            "to the scores of the model; the same training command finishes it",
            highlight=False,
        )
    return FinishedRun(
        setting,
        best,
        setting.trained(stop),
        corrections or Corrections(),
    )


def as_selected(finished: FinishedRun, console: Console) -> FinishedRun:
    """The same run with the model that validation selected, to evaluate on validation cases.

    Where the split refits after selection, the tested model was trained on these cases.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    setting = finished.setting
    if not setting.split.refits:
        return finished
    best = load_selected(setting, console)
    selected = _as_selected(setting, best.state.params, finished.fitted)
    return replace(finished, best=best, trained=selected.trained, corrections=selected.corrections)


def selected_model(setting: Setting, tested: FittedModel, console: Console) -> FittedModel:
    """The model that validation selected; the tested one unless the split refits.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    if not setting.split.refits:
        return tested
    return _as_selected(setting, load_selected(setting, console).state.params, tested)


def as_served(finished: FinishedRun, console: Console) -> FinishedRun:
    """The same run with the model trained on all events, if it has one; else unchanged.

    Raises:
      UserError: the folder of that model holds checkpoints, but none can be read.
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
    """The checkpoint that validation selected, even if the run has a refitted one.

    Raises:
      UserError: the folder holds no checkpoint that can be read.
    """
    return _load(setting, Path(setting.config.workdir), console)


def _as_selected(setting: Setting, params: Any, tested: FittedModel) -> FittedModel:
    """The selected `params` with what they were trained on, and corrections that count as much."""
    stop = setting.split.train_stop
    corrections = _corrections(setting, tested.params, stop)
    return FittedModel(params, setting.trained(stop), corrections or Corrections())


def _corrections(setting: Setting, params: Any, stop: npt.NDArray[np.int64]) -> Corrections | None:
    """Corrections calibrated for the tested `params`, with counts of the rows `offsets[u]:stop[u]`.

    None if the run has none for them.
    """
    workdir = Path(setting.config.workdir)
    return read_corrections(
        workdir,
        params,
        store=setting.store,
        stop=stop,
        length=setting.length,
        likeness=setting.likeness,
    )


def _load_whole(setting: Setting, name: str, steps: int, console: Console) -> Checkpoint | None:
    """The model retrained in the run's folder `name`; None unless it completed all `steps`."""
    folder = Path(setting.config.workdir) / name
    if read_config(folder) is None:
        return None
    found = _load(setting, folder, console)
    if found.step == steps:
        return found
    console.print(
        f"[yellow]{escape(str(folder))} holds a model at step {found.step:,} of {steps:,}: it was "
        "stopped, or belongs to an earlier selection. So this is the model that was trained before "
        f"it, on fewer events; the training command{' with --final-fit' * (name == FINAL)} "
        "finishes the other",
        highlight=False,
    )
    return None


def _load(setting: Setting, folder: Path, console: Console) -> Checkpoint:
    return load_best(
        setting.config,
        setting.training_data,
        mesh=setting.mesh,
        folder=folder,
        warn=lambda text: console.print(f"[yellow]{escape(text)}; taking another one"),
    )
