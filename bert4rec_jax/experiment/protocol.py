"""Protocol: train, select, calibrate, test beside baselines, show and record.

This is what `train.py` runs. It only calls the other modules and computes nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.markup import escape

from bert4rec_jax.checks import require_a
from bert4rec_jax.config import Config
from bert4rec_jax.config_roles import shared
from bert4rec_jax.evaluation import ledger
from bert4rec_jax.evaluation.comparison import Ranker
from bert4rec_jax.evaluation.metrics_file import METRICS, joined, read_metrics, same_test
from bert4rec_jax.evaluation.tuning import Grid, check_grids
from bert4rec_jax.experiment.calibration import calibrate
from bert4rec_jax.experiment.display import introduce, show
from bert4rec_jax.experiment.finished import FinishedRun, open_finished, selected_model
from bert4rec_jax.experiment.opening import open_setting
from bert4rec_jax.experiment.record import describe_data, describe_run, record
from bert4rec_jax.experiment.selection import select, train_on_all
from bert4rec_jax.experiment.setting import FittedModel, Setting
from bert4rec_jax.experiment.start import start
from bert4rec_jax.experiment.testing import check_own, evaluate_all
from bert4rec_jax.experiment.workdir import recording_in, training_in
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import is_first, require_same, start_processes
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.restore import make_record


def run(
    config: Config,
    *,
    recipe: str = "run",
    console: Console | None = None,
    baselines: Mapping[str, Grid] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run a config to its end, or continue where an earlier run of it in the same workdir stopped.

    A finished run is evaluated again. Metrics that earlier commands wrote for the same data,
    parameters and corrections are kept, except those of models that are tested now.

    Args:
      config: all settings.
      recipe: what the run is called in its output and in `metrics.json`.
      console: shows progress and tables; None for the terminal, `Console(quiet=True)` for nothing.
      baselines: name -> grid of a baseline of your own, tuned and tested beside the built-in ones,
        even where the config turns those off.

    Returns:
      What is written to `WORKDIR/metrics.json`.

    Raises:
      UserError: anything the user can fix, such as another run that is training in the workdir.
      Interrupted: asked to stop; the state is saved, and the same call continues.
    """
    require_a(Config, config, "config", "a Config, such as what `recipe` returns")
    check_own(baselines)
    start(config)
    require_same("settings", shared(config))
    console = console or Console(quiet=not is_first())
    with training_in(Path(config.workdir)):  # data is prepared into it
        setting = open_setting(config, console)
        about = make_record(config, setting.training_data)
        names = ("catalog", "data", "content", "users")
        require_same("data", {name: getattr(about, name) for name in names})
        check_grids(baselines, setting.store, setting.split.train_stop)
        introduce(setting, recipe, console)
        return _results(setting, recipe, baselines, console)


def evaluate(
    workdir: str | PathLike[str],
    *,
    exported: Callable[[FinishedRun], Mapping[str, Ranker]] | None = None,
    console: Console | None = None,
    baselines: Mapping[str, Grid] = MappingProxyType({}),
) -> dict[str, Any]:
    """Test the best checkpoint of a run, finished or not, and show the same tables.

    The metrics are added to `WORKDIR/metrics.json` if the run ended with this model.

    Args:
      workdir: the run's folder.
      exported: maps the run to other forms of its model to test beside it, by name.
      console: where tables go.
      baselines: as for `run`.

    Raises:
      UserError: the folder holds no checkpoint that can be read, or may not be written to; or a
        baseline's name is taken.
    """
    check_own(baselines)
    start_processes()
    console = console or Console(quiet=not is_first())
    if is_first():
        ledger.require_writable(Path(workdir))
    finished = open_finished(Path(workdir), console)
    setting, best = finished.setting, finished.best
    check_grids(baselines, setting.store, setting.split.train_stop)
    tested = evaluate_all(
        setting,
        finished.fitted,
        selected_model(setting, finished.fitted, console),
        console,
        test=True,
        exported=exported(finished) if exported else {},
        baselines=baselines,
    )
    parameters = digest(best.state.params)
    what = {
        "data": describe_data(setting),
        "parameters_sha256": {"tested": parameters},
        "corrections_sha256": finished.corrections.digest,
    }
    if is_first():
        with recording_in(Path(workdir), console):
            record(setting, tested, "evaluate", parameters, finished.corrections)
            path = Path(workdir) / METRICS
            earlier = read_metrics(path)
            if same_test(what, earlier):
                write_json(path, joined({**earlier, **tested.to_json()}, earlier))
        show(setting, tested, console)
    return {"steps": {"tested": best.step}, **what, **tested.to_json()}


def _results(
    setting: Setting, recipe: str, baselines: Mapping[str, Grid], console: Console
) -> dict[str, Any]:
    """Train, calibrate, test, record; what `run` returns."""
    config = setting.config
    path = Path(config.workdir) / METRICS
    before = read_metrics(path)  # all processes read before the first one writes
    fitted = select(setting, console)
    trained = time.monotonic()
    corrections = calibrate(setting, fitted.params, console)
    model = FittedModel(fitted.params, setting.trained(setting.split.refit_stop), corrections)
    tested = evaluate_all(
        setting,
        model,
        selected_model(setting, model, console),
        console,
        test=config.evaluation.test,
        baselines=baselines,
    )
    evaluation = time.monotonic() - trained
    results = describe_run(setting, recipe, fitted, corrections, tested, evaluation)
    if not is_first():
        results = joined(results, before)
    else:
        parameters = results["parameters_sha256"]["tested"]
        with recording_in(Path(config.workdir), console):
            record(setting, tested, "train", parameters, corrections)
            results = joined(results, read_metrics(path))  # `evaluate` may have written since
            write_json(path, results)
        show(setting, tested, console)
        console.print(f"Written: {escape(str(path))}", highlight=False)
    if config.final_fit:
        train_on_all(setting, fitted.step, console)
    return results
