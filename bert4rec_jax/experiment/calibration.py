"""Calibration: chooses, on validation cases, corrections of a trained model's scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from bert4rec_jax.data.split import Cases, train_counts
from bert4rec_jax.evaluation.cold_offset import choose_offset
from bert4rec_jax.evaluation.covisitation import Covisitation, Followers, choose_covisitation
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.evaluation.search import Choice, Settings, choosing
from bert4rec_jax.evaluation.trend import Trend, choose_trend
from bert4rec_jax.experiment.corrections import (
    CALIBRATION,
    Corrections,
    read_corrections,
    relatives_of,
)
from bert4rec_jax.experiment.finished import load_selected
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import barrier, is_first
from bert4rec_jax.training.digests import digest

_EVERY = 15.0  # seconds between the lines of a search
Evaluate = Callable[[Settings | None], float]


def calibrate(setting: Setting, params: Any, console: Console) -> Corrections:
    """Choose the corrections to add to the scores of the tested parameters.

    These are a trend where the split refits (it tests on the time after training), covisitation
    where the config asks for it, and an offset for untrained items where the split holds some out
    and items have content.

    They are chosen once and saved in the workdir for `bert4rec evaluate` and `export`, even if
    there are none.
    """
    split = setting.split
    wanted = setting.config.calibration
    workdir, parameters = Path(setting.config.workdir), digest(params)
    if not setting.calibrates:
        _keep(workdir, {"parameters_sha256": parameters})
        return Corrections()
    kept = _read(setting, params)
    if kept is not None and (kept.tried, kept.warm_kept) == (
        wanted.covisitation,
        wanted.warm_kept if setting.offsets_cold else kept.warm_kept,
    ):
        return kept
    selected = load_selected(setting, console).state.params if split.refits else params
    validation = _Validation(setting, selected)
    found: dict[str, Any] = {}
    if split.refits:
        found |= _trend(validation, console)
    if wanted.covisitation:
        if setting.offsets_cold:
            found["offset_alone"] = _offset(validation, console)["offset"]
        found["covisitation"] = _covisitation(validation, console)
    if setting.offsets_cold:
        found |= _offset(validation, console)
    _keep(workdir, {**found, "parameters_sha256": parameters})
    return _read(setting, params) or Corrections()


def _read(setting: Setting, params: Any) -> Corrections | None:
    return read_corrections(
        Path(setting.config.workdir),
        params,
        store=setting.store,
        stop=setting.split.refit_stop,
        length=setting.length,
        likeness=setting.likeness,
    )


def _keep(workdir: Path, found: dict[str, Any]) -> None:
    if is_first():
        write_json(workdir / CALIBRATION, found)
    barrier("calibration is written")


class _Validation:
    """Evaluates the selected model on validation cases, with the corrections chosen so far.

    Attributes:
      setting: the run's setting.
      shift, covisitation, offset: the corrections chosen so far; see `Corrections`.
    """

    def __init__(self, setting: Setting, params: Any) -> None:
        self.setting = setting
        self._params = params
        self._trained = setting.trained(setting.split.train_stop)
        self.shift = np.zeros(setting.store.catalog.num_rows, np.float32)
        self.covisitation: Mapping[str, npt.NDArray[Any]] | None = None
        self.offset = 0.0

    def warm(
        self,
        *,
        shift: npt.NDArray[np.float32] | None = None,
        covisitation: Mapping[str, npt.NDArray[Any]] | None = None,
        offset: float | None = None,
    ) -> float:
        """NDCG@10 of a sample of the validation cases.

        `shift` is added to the shift chosen so far; `covisitation` and `offset` replace those
        chosen so far.
        """
        return self._ndcg(
            self._warm, shift, covisitation, self.offset if offset is None else offset
        )

    def cold(self, offset: float) -> float:
        """NDCG@10 of a sample of the validation cases whose targets are untrained items."""
        return self._ndcg(self._cold, None, None, offset)

    def _ndcg(
        self,
        sample: tuple[Cases, npt.NDArray[np.float32]],
        shift: npt.NDArray[np.float32] | None,
        covisitation: Mapping[str, npt.NDArray[Any]] | None,
        offset: float,
    ) -> float:
        cases, hidden = sample
        corrections = Corrections(
            offset,
            self.shift if shift is None else self.shift + shift,
            self.covisitation if covisitation is None else covisitation,
        )
        ranking = self.setting.rank(
            self._params, self._trained, cases, corrections=corrections, hidden=hidden
        )
        return summary(ranking.ranks)["ndcg@10"]

    @cached_property
    def _warm(self) -> tuple[Cases, npt.NDArray[np.float32]]:
        return self._sample(self.setting.split.validation)

    @cached_property
    def _cold(self) -> tuple[Cases, npt.NDArray[np.float32]]:
        assert self.setting.split.cold_validation is not None
        return self._sample(self.setting.split.cold_validation)

    def _sample(self, cases: Cases) -> tuple[Cases, npt.NDArray[np.float32]]:
        cases = choosing(cases, len(self.setting.store.catalog))
        return cases, self.setting.encode(self._params, self._trained, cases)


def _offset(validation: _Validation, console: Console) -> dict[str, Any]:
    console.print("Calibrating the offset of items without a training event ...")
    found = choose_offset(
        lambda offset: (validation.warm(offset=offset), validation.cold(offset)),
        kept=validation.setting.config.calibration.warm_kept,
    )
    validation.offset = found.chosen.offset
    console.print(
        f"  offset {found.chosen.offset:g}: validation NDCG@10 {found.chosen.warm:.4f} of trained "
        f"targets, {found.chosen.cold:.4f} of the others",
        highlight=False,
    )
    return found.to_json()


def _trend(validation: _Validation, console: Console) -> dict[str, Any]:
    console.print("Calibrating the trend: counts of the last days of training ...")
    store, stop = validation.setting.store, validation.setting.split.train_stop

    def evaluate(trend: Trend | None) -> float:
        return validation.warm(shift=None if trend is None else trend.shift(store, stop))

    found = choose_trend(_telling(evaluate, console))
    if found.chosen is not None:
        validation.shift = validation.shift + found.chosen.shift(store, stop)
    _tell("a trend", found, console)
    return found.to_json("trend")


def _covisitation(validation: _Validation, console: Console) -> dict[str, Any]:
    console.print("Calibrating co-visitation counts: what followed a history's last items ...")
    setting = validation.setting
    store, stop = setting.store, setting.split.train_stop
    followers, counts = Followers.of(store, stop), train_counts(store, stop)
    likeness = setting.likeness()
    relatives = relatives_of(likeness, store, stop)
    if relatives is not None and (most := _most(relatives.weights)):
        console.print(f"  items go together by {most}", markup=False, highlight=False)

    def evaluate(tried: Covisitation | None) -> float:
        if tried is None:
            return validation.warm()
        collection = tried.collection(followers, setting.length, relatives)
        return validation.warm(shift=tried.shift(counts), covisitation=collection)

    found = choose_covisitation(_telling(evaluate, console), related=relatives is not None)
    if found.chosen is not None:
        validation.shift = validation.shift + found.chosen.shift(counts)
        validation.covisitation = found.chosen.collection(followers, setting.length, relatives)
    _tell("it", found, console)
    alike: dict[str, Any] = {}
    if likeness is not None and relatives is not None:
        alike = {"likeness": relatives.weights, "names_sha256": likeness.names_digest}
    return {**found.to_json("chosen"), "uncounted_gain": True, **alike}


def _most(weights: Mapping[str, float], shown: int = 5) -> str:
    """The largest weights that are above 0 when rounded, as text."""
    rounded = {name: round(weight, 1) for name, weight in weights.items()}
    found = sorted(weights, key=lambda name: -weights[name])[:shown]
    return ", ".join(f"{name} ({rounded[name]:.1f})" for name in found if rounded[name] > 0)


def _telling(evaluate: Evaluate[Settings], console: Console) -> Evaluate[Settings]:
    """`evaluate`, telling how a long search goes."""
    values, told = list[float](), [time.monotonic()]

    def evaluated(tried: Settings | None) -> float:
        values.append(evaluate(tried))
        if (now := time.monotonic()) - told[-1] >= _EVERY:
            told.append(now)
            text = f"  {len(values)} settings tried; the best so far has {max(values):.4f}"
            console.print(text, highlight=False)
        return values[-1]

    return evaluated


def _tell(what: str, found: Choice[Any], console: Console) -> None:
    console.print(
        f"  validation NDCG@10 {found.without:.4f} without {what}, {found.best:.4f} with the best",
        highlight=False,
    )
