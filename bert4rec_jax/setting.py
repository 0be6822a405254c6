"""Setting: what a run is about, opened from its config or from its folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh
from rich.console import Console

from bert4rec_jax.checks import seconds_of
from bert4rec_jax.config import Config, MeshConfig, from_json, to_json
from bert4rec_jax.corrections import Corrections, read_corrections
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.prepare import NAMES
from bert4rec_jax.data.split import (
    Cases,
    Split,
    first_days,
    global_time,
    leave_one_out,
    train_counts,
)
from bert4rec_jax.data.store import SequenceStore, is_store
from bert4rec_jax.data.thumbs import UP, default_thresholds, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import Evaluator, Ranking
from bert4rec_jax.evaluation.lift import COLLECTION
from bert4rec_jax.evaluation.metrics import known
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.known_users import KnownUsers, read_users
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.inputs import KnownContent, open_cold_items, open_content, open_data
from bert4rec_jax.models.bert4rec import BERT4Rec
from bert4rec_jax.models.two_tower import TwoTower
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import is_first
from bert4rec_jax.programs import keep_programs
from bert4rec_jax.sharding import Along, check_divides, fits, make_mesh, platform, put
from bert4rec_jax.training.checkpoints import Checkpoint, check_same_config, read_config
from bert4rec_jax.training.fit import (
    Features,
    TrainingData,
    catalog_constants,
    load_best,
    make_plan,
    trained_items,
)
from bert4rec_jax.training.parts import build_model

ENCODING = "encoding.json"  # where a run that began from another keeps what makes its content
USER_ENCODING = "user_encoding.json"  # and what makes rows of users
REFIT = "refit"  # where a run keeps the model that was trained anew after selection
FINAL = "final"  # and the one that was trained on all events, for serving


@dataclass(frozen=True, eq=False)
class Setting:
    """What a run is about.

    Attributes:
      config: all settings.
      mesh: the devices.
      source: the data as it was prepared.
      store: histories, those of `source` or of the same users without the items held out.
      split: what is trained on, and what is asked.
      thumbs: rating thresholds.
      known_content: what is known of each item beside its id, or None.
      evaluator: asks models.
      first_day: `[V]` when each item was first watched, for a model that reads times, or None.
      known_users: what is known of users beside their history, or None.
    """

    config: Config
    mesh: Mesh
    source: SequenceStore
    store: SequenceStore
    split: Split
    thumbs: tuple[float, float]
    known_content: KnownContent | None
    evaluator: Evaluator
    first_day: Features | None = None
    known_users: KnownUsers | None = None

    @property
    def content(self) -> Features | None:
        """`[V, F]` what is known of each item beside its id, or None."""
        return None if self.known_content is None else self.known_content.matrix

    @property
    def encoding(self) -> Encoding | None:
        """What made the content, and makes that of new items; None without content."""
        return None if self.known_content is None else self.known_content.encoding

    @property
    def catalog(self) -> Catalog:
        """The items, with titles and genres of the content where the log came without."""
        names = None if self.known_content is None else self.known_content.names
        return names or self.store.catalog

    @property
    def users(self) -> Features | None:
        """`[U + 1, G]` what is known of user u in row u + 1, or None."""
        return None if self.known_users is None else self.known_users.matrix

    @property
    def user_encoding(self) -> UserEncoding | None:
        """What made rows of users, and makes those of others; None where nothing is known."""
        return None if self.known_users is None else self.known_users.encoding

    @property
    def training_data(self) -> TrainingData:
        """What the model is trained on."""
        return TrainingData(self.store, self.thumbs, self.content, self.first_day, self.users)

    @property
    def length(self) -> int:
        """Positions L of the model."""
        return self.config.data.max_length

    @property
    def causal(self) -> bool:
        """Whether the model is read at the newest item, from the left, not at a MASK."""
        return self.config.masking.objective == "next"

    def model(self) -> BERT4Rec | TwoTower:
        """The module."""
        return build_model(
            self.config.model,
            num_rows=self.store.catalog.num_rows,
            max_length=self.config.data.max_length,
            content_dim=0 if self.content is None else self.content.shape[1],
        )

    def trained(self, stop: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """`[V]`: the items that a model trained on the rows `offsets[u]:stop[u]` has met."""
        return trained_items(make_plan(self.config, self.store, stop), self.store)

    def scored(self, trained: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """`[V]`: the items that a model can score: trained on, or known by their content."""
        known = trained if self.content is None else trained | (self.content != 0).any(1)
        return known & self.store.catalog.is_item()

    def variables(
        self, params: Any, trained: npt.NDArray[np.bool_], corrections: Corrections | None = None
    ) -> dict[str, Any]:
        """The model's collections: `params`, and `catalog` if it needs any constants."""
        corrections = corrections or Corrections()
        catalog = catalog_constants(
            self.mesh, self.content, trained, corrections.offset, first_day=self.first_day
        )
        if corrections.shift is not None:
            table = dict(params["item_table"])
            table["bias"] = table["bias"] + put(self.mesh, Along.ITEMS, corrections.shift)
            params = {**params, "item_table": table}
        variables = {"params": params, **({"catalog": catalog} if catalog else {})}
        if corrections.covisitation is not None:
            variables[COLLECTION] = {
                name: put(self.mesh, Along.NEITHER, array)
                for name, array in corrections.covisitation.items()
            }
        return variables

    def ask(
        self,
        params: Any,
        trained: npt.NDArray[np.bool_],
        cases: Cases,
        among: npt.NDArray[np.int32] | None = None,
        *,
        corrections: Corrections | None = None,
        hidden: Features | None = None,
    ) -> Ranking:
        """A model's answers, given its parameters and `[V]` which items it was trained on; and what
        `encode` made of the cases, if it did."""
        return self.evaluator.rank_model(
            self.model(),
            self.variables(params, trained, corrections),
            cases,
            known=self.scored(trained),
            max_length=self.config.data.max_length,
            causal=self.causal,
            among=among,
            hidden=hidden,
        )

    def encode(self, params: Any, trained: npt.NDArray[np.bool_], cases: Cases) -> Features:
        """`[M, D]` what a model makes of the histories of cases."""
        return self.evaluator.encode(
            self.model(),
            self.variables(params, trained),
            cases,
            max_length=self.config.data.max_length,
            causal=self.causal,
        )

    def tested(self) -> dict[str, Cases]:
        """The named sets of test cases.

        Under the global-time split, cases whose target or user has no training event are sets of
        their own: published figures leave them out. New users who ask for new items are among the
        new items.
        """
        if not self.split.refits:
            return dict(self.split.test)
        stop = self.split.refit_stop
        counts = train_counts(self.store, stop)
        sets: dict[str, Cases] = {}
        for name, cases in self.split.test.items():
            familiar = known(cases, self.store, stop)
            new_item = counts[self.store.tokens[cases.rows]] == 0
            sets[name] = cases[familiar]
            for what, which in (("items", new_item), ("users", ~new_item & ~familiar)):
                if which.any():
                    sets[f"{name}_new_{what}"] = cases[which]
        return sets


def open_setting(config: Config, console: Console, *, finished: bool = False) -> Setting:
    """Everything before the work: devices, data, questions. Refuses what cannot go on.

    The data of a `finished` run are those it has kept, whatever has become of its log.

    Raises:
      UserError: the workdir holds another run, the devices do not fit, or see `open_data`,
        `open_content` and the splits.
    """
    workdir = Path(config.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {workdir} is a file; give a folder with --workdir")
    mesh = make_mesh(data=config.mesh.data, model=config.mesh.model)
    if platform(mesh) != "cpu":
        keep_programs()
    saved = read_config(workdir / "checkpoints")
    if saved is not None:  # before anything in the folder is touched
        check_same_config(saved, to_json(config), workdir)
    source = store = open_data(config.data, workdir, console, finished=finished)
    for batch_size in (config.training.batch_size, config.evaluation.batch_size):
        check_divides(mesh, batch_size=batch_size, num_rows=store.catalog.num_rows)
    if config.model.times and not store.timed:
        raise UserError(
            f"model.times is on, but {store.path} has no timestamps; prepare the log with its "
            "column of times, or leave it off"
        )
    repeats = config.data.repeats
    if repeats and not (config.masking.own_negatives or config.training.in_batch_negatives):
        raise UserError(
            "masking.own_negatives is False; expected True with data.repeats: an item of the "
            "history can be the answer, so it has to compete in training (--masking.own-negatives)"
        )
    if repeats and config.evaluation.sampled:
        raise UserError(
            "evaluation.sampled is True; expected False with data.repeats: the published protocol "
            "draws among items that were not seen"
        )
    thumbs = config.data.thumbs or default_thresholds(
        store.manifest["source"].get("max_rating"), read=config.reads_thumbs
    )
    if config.data.split == "cold-items":
        folder = workdir / "without_cold_items"
        store, split = open_cold_items(store, folder, repeats=repeats)
    elif config.data.split == "global-time":
        split = global_time(
            store,
            quantile=config.data.time_quantile,
            test_from=seconds_of(config.data.test_from) if config.data.test_from else None,
            repeats=repeats,
        )
    elif config.data.targets == "liked":
        split = leave_one_out(store, to_thumbs(store.ratings, thumbs) >= UP, repeats=repeats)
    else:
        split = leave_one_out(store, repeats=repeats)
    like = None
    if config.data.content == "catalog" and config.init_from:
        made = _kept_encoding(config, ENCODING, lambda setting: setting.encoding, console)
        like = Encoding.from_json(made) if made else None
    content = open_content(config.data, store, train_counts(store, split.train_stop), console, like)
    if not len(split.validation):
        reasons = "; ".join(f"{n:,} {why}" for why, n in split.validation.dropped.items())
        raise UserError(
            f"no user of {store.path} can be asked on validation: {reasons or 'there is none'}. "
            "Prepare a log whose users have several different items, or another --data.split"
        )
    users = _open_users(config, store, split, console) if config.data.users else None
    evaluation = config.evaluation
    evaluator = Evaluator(
        store,
        mesh=mesh,
        batch_size=evaluation.batch_size,
        item_chunk=evaluation.item_chunk,
        thumbs=thumbs,
        users=None if users is None else users.matrix,
        repeats=repeats,
    )
    days = first_days(store, split.refit_stop) if config.model.times else None
    return Setting(config, mesh, source, store, split, thumbs, content, evaluator, days, users)


def _open_users(config: Config, store: SequenceStore, split: Split, console: Console) -> KnownUsers:
    """What is known of a log's users; only those with training rows shape the columns."""
    made = None
    if config.init_from:
        made = _kept_encoding(config, USER_ENCODING, lambda setting: setting.user_encoding, console)
    return read_users(
        Path(config.data.users),
        store.user_ids(),
        split.train_stop > store.offsets[:-1],
        like=UserEncoding.from_json(made) if made else None,
        notify=lambda sentence: console.print(sentence, highlight=False),
    )


def _kept_encoding(
    config: Config,
    name: str,
    of: Callable[[Setting], Encoding | UserEncoding | None],
    console: Console,
) -> dict[str, Any] | None:
    """An encoding of the run that this one begins from, in JSON; kept, as that may be removed."""
    workdir = Path(config.workdir)
    kept = workdir / name
    if not (workdir / "checkpoints").is_dir():
        encoding = of(open_finished(Path(config.init_from), console).setting)
        if encoding is None:
            return None
        values = encoding.to_json()
        if is_first():
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(kept, values)
        return values
    return dict(json.loads(kept.read_text(encoding="utf-8"))) if kept.is_file() else None


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
      UserError: the folder holds no checkpoint that can be read; or see `open_setting`.
    """
    values = read_config(workdir / "checkpoints")
    if values is None and (workdir / "manifest.json").is_file():
        raise UserError(f"{workdir} is a bundle or a store; give the folder of a run (its workdir)")
    if values is None:
        raise UserError(f"{workdir} holds no checkpoint; train with --workdir {workdir} first")
    config = replace(from_json(values), workdir=str(workdir))
    if not fits(config.mesh.data, config.mesh.model):
        config = replace(config, mesh=MeshConfig())  # trained on other devices than these
    _require_inputs(config, workdir)
    setting = open_setting(config, console, finished=True)

    split = setting.split
    selected = load_selected(setting, console)
    refitted = _load_whole(setting, REFIT, selected.step, console) if split.refits else None
    best, stop = (selected, split.train_stop) if refitted is None else (refitted, split.refit_stop)
    corrections = _corrections(setting, best.state.params, stop)
    if corrections is None and (split.refits or config.calibration.covisitation):
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


def _require_inputs(config: Config, workdir: Path) -> None:
    """Refuse to look for a run's inputs from another folder than it was trained in.

    Raises:
      UserError: one that was given relative to that folder is not there.
    """
    kept = {"path": is_store(workdir / "data") or config.data.path in NAMES}
    kept["content"] = config.data.content == "catalog"
    for name in ("path", "content", "users"):
        given = str(getattr(config.data, name))
        if given and not (kept.get(name) or Path(given).exists()):
            raise UserError(
                f"{workdir} was trained with data.{name} {given}, which does not exist as seen "
                f"from {Path.cwd()}; run this in the folder that the training ran in, or put it "
                "back"
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
