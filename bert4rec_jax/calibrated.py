"""Calibrated: what validation adds to the biases of a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from bert4rec_jax.evaluation.calibration import calibrate
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.evaluation.trend import Trend, choose_trend
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import barrier, is_first
from bert4rec_jax.setting import CALIBRATION, Added, Setting, load_selected, read_added
from bert4rec_jax.training.fit import digest


def calibrated(setting: Setting, params: Any, console: Console) -> Added:
    """What is added to the biases of tested parameters: an offset of untrained items where the
    split holds some out, a trend where it asks about the time after training; else nothing.

    It is found once, and kept in the workdir for `bert4rec evaluate` and `export`.
    """
    split, store = setting.split, setting.store
    offset = split.cold_validation is not None and setting.content is not None
    if not offset and not split.refits:
        return Added()
    workdir = Path(setting.config.workdir)
    kept = read_added(workdir, params, store=store, stop=split.refit_stop)
    if kept is not None:
        return kept
    found = _offset(setting, params, console) if offset else _trend(setting, console)
    if is_first():
        write_json(workdir / CALIBRATION, {**found, "parameters_sha256": digest(params)})
    barrier("calibration is written")
    return read_added(workdir, params, store=store, stop=split.refit_stop) or Added()


def _offset(setting: Setting, params: Any, console: Console) -> dict[str, Any]:
    console.print("Calibrating the scores of items without a training event ...")
    split = setting.split
    trained = setting.trained(split.train_stop)

    def ask(offset: float) -> tuple[float, float]:
        warm, cold = (
            summary(setting.ask(params, trained, cases, added=Added(offset)).ranks)["ndcg@10"]
            for cases in (split.validation, split.cold_validation)
            if cases is not None
        )
        return warm, cold

    return calibrate(ask).to_json()


def _trend(setting: Setting, console: Console) -> dict[str, Any]:
    console.print("Weighing what was watched last before training ends ...")
    split = setting.split
    trained = setting.trained(split.train_stop)
    params = load_selected(setting, console).state.params

    def ask(trend: Trend | None) -> float:
        shift = None if trend is None else trend.shift(setting.store, split.train_stop)
        ranks = setting.ask(params, trained, split.validation, added=Added(shift=shift)).ranks
        return summary(ranks)["ndcg@10"]

    found = choose_trend(ask)
    best = max([found.without, *(value for _, value in found.trials)])
    console.print(
        f"  validation NDCG@10 {found.without:.4f} without a trend, {best:.4f} with the best",
        highlight=False,
    )
    return found.to_json()
