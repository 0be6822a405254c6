"""Selection: train, keep the best by validation, retrain where the split or the config asks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.config import to_json
from bert4rec_jax.config_roles import differences
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.experiment.finished import (
    FINAL,
    REFIT,
    FinishedRun,
    as_selected,
    as_served,
    open_finished,
)
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import everywhere, is_first, require_same
from bert4rec_jax.training.coverage import make_plan
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.fit import TrainResult, fit
from bert4rec_jax.training.growth import earlier_tokens, grown_state
from bert4rec_jax.training.run_record import read_config
from bert4rec_jax.training.step import TrainState

BEGUN_FROM = "begun_from.json"  # in the workdir: digest of the parameters that selection began from


def select(setting: Setting, console: Console) -> TrainResult:
    """Train and select by validation; where the split refits, retrain on all rows up to T."""
    config, split = setting.config, setting.split
    _require_earlier(setting, console)
    trained = setting.trained(split.train_stop)

    def validate(params: Any, poll: Callable[[], None]) -> dict[str, float]:
        return summary(setting.rank(params, trained, split.validation, poll=poll).ranks)

    workdir, data = Path(config.workdir), setting.training_data
    selected = fit(
        config,
        data,
        mesh=setting.mesh,
        stop=split.train_stop,
        folder=workdir,
        console=console,
        title="training",
        validate=validate,
        initial=_begin(setting, console, as_selected),
    )
    if not split.refits:
        return selected
    refitted = fit(
        config,
        data,
        mesh=setting.mesh,
        stop=split.refit_stop,
        folder=workdir / REFIT,
        console=console,
        title="refit up to T",
        validate=None,
        steps=selected.step,
        scheduled=_scheduled(setting),
        initial=_begin(setting, console, lambda earlier, _: earlier),
    )
    seconds = selected.seconds + refitted.seconds
    return replace(refitted, validations=selected.validations, seconds=seconds)


def train_on_all(setting: Setting, steps: int, console: Console) -> None:
    """Train the model to serve on all events. It cannot be tested, as no events are held out."""
    config = setting.config
    folder = Path(config.workdir) / FINAL
    fit(
        config,
        setting.training_data,
        mesh=setting.mesh,
        stop=np.asarray(setting.store.offsets[1:]),
        folder=folder,
        console=console,
        title="final fit on all events",
        validate=None,
        steps=steps,
        scheduled=_scheduled(setting),
        initial=_begin(setting, console, as_served),
    )
    console.print(f"Written: {escape(str(folder))}, which is what is exported", highlight=False)


def _require_earlier(setting: Setting, console: Console) -> None:
    """Refuse to continue from another earlier run, or without one that is needed later.

    The earlier run is told by its parameters, wherever it lies by now. It is opened only if its
    folder is another one than before, or if a model that begins from it has no checkpoint yet.

    Raises:
      UserError: it is another run, it is gone, or it cannot be opened.
    """
    config = setting.config
    workdir, earlier = Path(config.workdir), config.init_from
    saved = read_config(workdir) if earlier else None
    if saved is None:  # nothing has begun yet
        return
    then = saved["init_from"]
    later = [REFIT] * setting.split.refits + [FINAL] * config.final_fit
    missing = [name for name in later if read_config(workdir / name) is None]
    in_place = everywhere(then == earlier)
    if in_place and not missing:
        return
    if read_config(Path(earlier)) is None:
        if not missing:
            raise UserError(
                f"{earlier} holds no run, and {workdir} began from the one in {then}; give the "
                f"folder where that is now, or --init-from {then} if it is gone"
            )
        raise UserError(
            f"{earlier} holds no run any more, and the {missing[0]} model of this run "
            "begins from that one too; put it back, or give the folder where it is now"
            + (", or train without --final-fit" if missing == [FINAL] else "")
        )
    kept = workdir / BEGUN_FROM
    if not kept.is_file():  # the run was begun by an earlier version
        if in_place:
            return
        raise UserError(
            f"{workdir} began from the run in {then}, and does not say with which parameters, so "
            f"{earlier} may hold another one; give --init-from {then}"
        )
    began = json.loads(kept.read_text(encoding="utf-8"))["parameters_sha256"]
    found = digest(_open_earlier(config.init_from, console, as_selected).best.state.params)
    if found != began:
        raise UserError(
            f"{workdir} began from the run in {then}, and {earlier} holds another one, or has been "
            f"trained further (fingerprint of its parameters {began[:12]} then, {found[:12]} now); "
            "give that run to continue, or another --workdir"
        )


def _scheduled(setting: Setting) -> int:
    """Updates after which the learning rate of selection has decayed.

    Retraining on more rows has longer epochs, but makes the same updates at the same rates.
    """
    config = setting.config
    plan = make_plan(config, setting.store, setting.split.train_stop)
    return config.training.epochs * plan.steps_per_epoch


def _begin(
    setting: Setting, console: Console, model: Callable[[FinishedRun, Console], FinishedRun]
) -> Callable[[TrainState], TrainState] | None:
    """How training begins from an earlier run (`config.init_from`), if the run does so.

    `model` chooses which model of the earlier run: selection begins from the one that was selected,
    the refit from the tested one, and the final fit from the one that is served. So the events that
    a run is validated and tested on stay unseen, as long as its log continues the earlier one.
    """
    return partial(_grown, setting, console, model) if setting.config.init_from else None


def _grown(
    setting: Setting,
    console: Console,
    model: Callable[[FinishedRun, Console], FinishedRun],
    fresh: TrainState,
) -> TrainState:
    """The first train state of a run that begins from an earlier one.

    Raises:
      UserError: the earlier run cannot be read, or has another model, other columns of content or
        other user features.
    """
    config = setting.config
    earlier = _open_earlier(config.init_from, console, model)
    began = digest(earlier.best.state.params)
    require_same("earlier runs", {"parameters": began})
    then = earlier.setting.config
    as_then = replace(config, model=then.model)
    as_then = replace(as_then, data=replace(config.data, max_length=then.data.max_length))
    changed = differences(to_json(as_then), to_json(config))
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(
            f"{config.init_from} trained another model:\n  {listed}\nleave these settings out to "
            "take those of the earlier run"
        )
    if config.model.thumbs and earlier.setting.thumbs != setting.thumbs:
        (up, two_up), (our_up, our_two_up) = earlier.setting.thumbs, setting.thumbs
        raise UserError(
            f"{config.init_from} was trained with ratings from {up:g} as thumbs up and from "
            f"{two_up:g} as two up, and this run reads {our_up:g} and {our_two_up:g}; give "
            f"--data.thumbs {up:g} {two_up:g}"
        )
    if earlier.setting.encoding is None and setting.encoding is not None:
        raise UserError(
            f"{config.init_from} was trained without content; go on without it "
            "(--data.content '') to begin from it"
        )
    if earlier.setting.encoding != setting.encoding:
        raise UserError(
            f"{config.init_from} was trained on content with other columns; use the same "
            "data.content, and make a folder for it with `bert4rec features --like CONTENT`"
        )
    if earlier.setting.user_encoding != setting.user_encoding:
        with_or_without = "without" if earlier.setting.user_encoding is None else "with"
        raise UserError(
            f"{config.init_from} was trained {with_or_without} user features; go on "
            f"{with_or_without} --data.users to begin from it"
        )
    if read_config(Path(config.workdir)) is None and is_first():  # selection begins
        write_json(Path(config.workdir) / BEGUN_FROM, {"parameters_sha256": began})
    catalog = setting.store.catalog
    tokens = earlier_tokens(catalog, earlier.setting.store.catalog, earlier.trained.items)
    kept = int((tokens[catalog.is_item()] >= 0).sum())
    console.print(
        f"  beginning from step {earlier.best.step:,} of {escape(config.init_from)}, which knows "
        f"{kept:,} of {len(catalog):,} items",
        highlight=False,
    )
    return grown_state(setting.mesh, fresh, earlier.best.state, tokens)


def _open_earlier(
    folder: str, console: Console, model: Callable[[FinishedRun, Console], FinishedRun]
) -> FinishedRun:
    """The earlier run in a folder, with one of its models; raises `UserError` if it cannot."""
    try:
        return model(open_finished(Path(folder), console), console)
    except UserError as error:
        raise UserError(
            f"cannot begin from {folder}: {error}. An earlier run is opened with the "
            "data and the content that it was trained on, so keep these in folders of their own"
        ) from None
