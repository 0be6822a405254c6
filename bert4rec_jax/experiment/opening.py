"""Opening: builds the setting of a run from a config, or from the folder of a trained run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bert4rec_jax.checks import seconds_of
from bert4rec_jax.config import Config, MeshConfig, from_json, to_json
from bert4rec_jax.data.prepare import NAMES
from bert4rec_jax.data.split import (
    REPEATED,
    Split,
    first_days,
    global_time,
    leave_one_out,
    train_counts,
)
from bert4rec_jax.data.store import SequenceStore, is_store
from bert4rec_jax.data.thumbs import UP, default_thresholds, to_thumbs
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import Evaluator
from bert4rec_jax.experiment.inputs import open_cold_items, open_content, open_data
from bert4rec_jax.experiment.programs import keep_programs
from bert4rec_jax.experiment.seen_before import SeenBefore, seen_before
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.known_users import KnownUsers, read_users
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import is_first
from bert4rec_jax.sharding import check_divides, fits, make_mesh, platform
from bert4rec_jax.training.checkpoints import check_same_config, read_config
from bert4rec_jax.training.growth import earlier_tokens

# A run that begins from another (`init_from`) keeps what it took over in its workdir.
ENCODING = "encoding.json"  # of items' content
USER_ENCODING = "user_encoding.json"  # of user features
SEEN_BEFORE = "seen_before.json"  # see `experiment.seen_before`


def open_setting(config: Config, console: Console, *, finished: bool = False) -> Setting:
    """Open devices, data, split, features and evaluator; refuse settings that cannot work.

    For a `finished` run, the store kept in its workdir is used, whatever has become of its log.

    Raises:
      UserError: the workdir holds another run, the devices do not fit, settings contradict each
        other or the data, or see `open_data`, `open_content` and the splits.
    """
    workdir = Path(config.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {workdir} is a file; give a folder with --workdir")
    mesh = make_mesh(data=config.mesh.data, model=config.mesh.model)
    if platform(mesh) != "cpu":
        keep_programs()
    saved = read_config(workdir / "checkpoints")
    if saved is not None:  # check before anything in the folder is changed
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
    if config.reads_thumbs and not np.isfinite(store.ratings).any():
        raise UserError(
            "thumbs are read (data.targets liked, model.thumbs, or weights by thumb in masking), "
            f"but {store.path} has no ratings; prepare the log with its column of ratings, or "
            "leave thumbs out"
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
    earlier = _Earlier(config, console)
    seen = earlier.seen_before(store, split)
    if seen is not None:
        split = seen.left_out(split)
    like = earlier.encoding() if config.data.content == "catalog" else None
    content = open_content(
        config.data,
        store,
        train_counts(store, split.train_stop),
        console,
        like,
        begins=bool(config.init_from),
    )
    if not len(split.validation):
        dropped = split.validation.dropped
        reasons = "; ".join(f"{n:,} {why}" for why, n in dropped.items())
        reasons += " (--data.repeats keeps these)" if REPEATED in dropped else ""
        raise UserError(
            f"no user of {store.path} can be asked on validation: {reasons or 'there is none'}. "
            "Prepare a log whose users have several different items, or another --data.split"
        )
    users = _open_users(config, store, split, earlier, console) if config.data.users else None
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
    return Setting(
        config, mesh, source, store, split, thumbs, content, evaluator, days, users, seen
    )


def reopen(workdir: Path, console: Console) -> Setting:
    """Rebuild the setting of a run from its folder; its training may be unfinished.

    Raises:
      UserError: the folder holds no run; or see `open_setting`.
    """
    values = read_config(workdir / "checkpoints")
    if values is None and (workdir / "manifest.json").is_file():
        raise UserError(f"{workdir} is a bundle or a store; give the folder of a run (its workdir)")
    if values is None:
        raise UserError(f"{workdir} holds no checkpoint; train with --workdir {workdir} first")
    config = replace(from_json(values), workdir=str(workdir))
    if not fits(config.mesh.data, config.mesh.model):
        config = replace(config, mesh=MeshConfig())  # it was trained on other devices
    _require_inputs(config, workdir)
    return open_setting(config, console, finished=True)


def _open_users(
    config: Config, store: SequenceStore, split: Split, earlier: _Earlier, console: Console
) -> KnownUsers:
    """Read the features of a log's users; the encoding is fitted on users with training rows."""
    return read_users(
        Path(config.data.users),
        store.user_ids(),
        split.train_stop > store.offsets[:-1],
        like=earlier.user_encoding(),
        notify=lambda sentence: console.print(sentence, highlight=False),
    )


class _Earlier:
    """What a run takes over from the one that it begins from (`config.init_from`), if there is one.

    Copies are kept in the workdir, because that run may be removed later.
    """

    def __init__(self, config: Config, console: Console) -> None:
        self._config, self._console = config, console

    def encoding(self) -> Encoding | None:
        """The encoding of items' content; None if that run has none.

        Raises:
          UserError: its content came from a folder.
        """

        def find() -> Encoding | None:
            given = self._setting.config.data.content
            if given not in ("", "catalog"):
                raise UserError(
                    f"{self._config.init_from} was trained on the content in {given}, and "
                    "data.content catalog knows titles and genres alone; make content for this "
                    f"log (`bert4rec features ... --like {given}`) and give it with --data.content"
                )
            return self._setting.encoding

        made = self._kept(ENCODING, find)
        return Encoding.from_json(made) if made else None

    def user_encoding(self) -> UserEncoding | None:
        """The encoding of user features; None if that run has none."""
        made = self._kept(USER_ENCODING, lambda: self._setting.user_encoding)
        return UserEncoding.from_json(made) if made else None

    def seen_before(self, store: SequenceStore, split: Split) -> SeenBefore | None:
        """The events that the run holds out and that run was trained on.

        Raises:
          UserError: that run was trained on items that the split holds out.
        """

        def find() -> SeenBefore:
            before = self._setting
            found = seen_before(store, split, before.store, before.split, before.seen_before)
            self._refuse_warm(store, split)
            for what, count in (("validation", found.selected), ("test", found.tested)):
                if len(count):
                    self._console.print(
                        f"[yellow]{self._config.init_from} was trained on {len(count):,} of the "
                        f"events held out for {what}: cases with such a target are left out",
                        highlight=False,
                    )
            return found

        made = self._kept(SEEN_BEFORE, find)
        return SeenBefore.from_json(made) if made else None

    def _refuse_warm(self, store: SequenceStore, split: Split) -> None:
        if split.cold_validation is None:
            return
        before = self._setting
        trained = before.trained(before.split.refit_stop)
        tokens = earlier_tokens(store.catalog, before.store.catalog, trained)
        cold = store.catalog.is_item() & (train_counts(store, split.train_stop) == 0)
        known = int((tokens[cold] >= 0).sum())
        if known:
            raise UserError(
                f"{self._config.init_from} was trained on {known:,} of the {int(cold.sum()):,} "
                "items that data.split cold-items holds out, so they are not cold; train without "
                "--init-from"
            )

    def _kept(self, name: str, find: Callable[[], Any]) -> dict[str, Any] | None:
        """What `find` finds in that run, as JSON, or None; from the workdir if training began."""
        workdir = Path(self._config.workdir)
        if not self._config.init_from:
            return None
        if (workdir / "checkpoints").is_dir():
            kept = workdir / name
            return dict(json.loads(kept.read_text(encoding="utf-8"))) if kept.is_file() else None
        found = find()
        if found is None:
            return None
        values: dict[str, Any] = found.to_json()
        if is_first():
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(workdir / name, values)
        return values

    @cached_property
    def _setting(self) -> Setting:
        return reopen(Path(self._config.init_from), self._console)


def _require_inputs(config: Config, workdir: Path) -> None:
    """Refuse a run whose inputs are missing, such as when it was trained in another folder.

    Raises:
      UserError: an input path in the config does not exist (a relative one is looked up from the
        current folder), and the run keeps no copy of that input.
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
