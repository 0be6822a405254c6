"""Opening: builds the setting of a run from a config, or from the folder of a trained run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bert4rec_jax.config import (
    Config,
    MeshConfig,
    from_json,
    to_json,
)
from bert4rec_jax.config_roles import completed, differences
from bert4rec_jax.data.split import Split, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import default_thresholds
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import Evaluator
from bert4rec_jax.evaluation.metrics_file import METRICS, read_metrics
from bert4rec_jax.experiment.earlier import EarlierRun
from bert4rec_jax.experiment.inputs import open_content, open_data
from bert4rec_jax.experiment.programs import keep_programs
from bert4rec_jax.experiment.requirements import check_log, require_inputs
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.experiment.splits import open_split, require_validation
from bert4rec_jax.features.known_users import KnownUsers, read_users
from bert4rec_jax.outputs import require_utf8
from bert4rec_jax.sharding import check_divides, fits, make_mesh, platform, rounded_up
from bert4rec_jax.training.run_record import check_same_config, read_config, require_run
from bert4rec_jax.training.wandb_run import require_wandb


def open_setting(config: Config, console: Console, *, finished: bool = False) -> Setting:
    """Open devices, data, split, features and evaluator; refuse settings that cannot work.

    For a `finished` run, the store kept in its workdir is used, whatever has become of its log, and
    its batches need not split over the devices of this machine.

    Raises:
      UserError: the workdir holds another run, the devices do not fit, settings contradict each
        other or the data, or see `open_data`, `open_content` and the splits.
    """
    workdir = Path(config.workdir)
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"the workdir {workdir} is a file; give a folder with --workdir")
    require_utf8(workdir.resolve())
    if not finished and set("*?[") & set(str(workdir.resolve())):
        raise UserError(
            f"the path of the workdir {workdir.resolve()} has one of the signs * ? [, which Orbax "
            "takes for a pattern, so that its checkpoints could not be read; choose another "
            "--workdir"
        )
    if config.log.wandb and not finished:
        require_wandb()
    mesh = make_mesh(data=config.mesh.data, model=config.mesh.model)
    if platform(mesh) != "cpu":
        keep_programs()
    saved = read_config(workdir)
    if saved is not None:  # check before anything in the folder is changed
        check_same_config(saved, to_json(config), workdir)
    source = open_data(config.data, workdir, console, finished=finished)
    batch_size = config.evaluation.batch_size
    if finished:  # nothing is trained, and no result depends on how many cases are ranked at once
        batch_size = rounded_up(mesh, batch_size)
    for size in (batch_size, *([] if finished else [config.training.batch_size])):
        check_divides(mesh, batch_size=size, num_rows=source.catalog.num_rows)
    check_log(config, source)
    thumbs = config.data.thumbs or default_thresholds(
        source.manifest["source"].get("max_rating"), read=config.reads_thumbs
    )
    store, split = open_split(config, source, thumbs)
    earlier = EarlierRun(config, reopen, console)
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
    require_validation(split, store)
    users = _open_users(config, store, split, earlier, console) if config.data.users else None
    evaluator = Evaluator(
        store,
        mesh=mesh,
        batch_size=batch_size,
        item_chunk=config.evaluation.item_chunk,
        thumbs=thumbs,
        users=None if users is None else users.matrix,
        repeats=config.data.repeats,
    )
    return Setting(config, mesh, source, store, split, thumbs, content, evaluator, users, seen)


def reopen(workdir: Path, console: Console) -> Setting:
    """Rebuild the setting of a run from its folder; its training may be unfinished.

    Raises:
      UserError: the folder holds no run; or see `open_setting`.
    """
    values = require_run(workdir)
    latest = read_metrics(workdir / METRICS).get("config")
    if isinstance(latest, dict) and not differences(completed(values), completed(latest)):
        values = latest  # a run that is started again may have other settings of evaluation
    config = replace(from_json(values), workdir=str(workdir))
    if not fits(config.mesh.data, config.mesh.model):
        config = replace(config, mesh=MeshConfig())  # it was trained on other devices
    require_inputs(config, workdir)
    return open_setting(config, console, finished=True)


def _open_users(
    config: Config, store: SequenceStore, split: Split, earlier: EarlierRun, console: Console
) -> KnownUsers:
    """Read the features of a log's users; the encoding is fitted on users with training rows."""
    return read_users(
        Path(config.data.users),
        store.user_ids(),
        split.train_stop > store.offsets[:-1],
        like=earlier.user_encoding(),
        notify=lambda sentence: console.print(sentence, markup=False, highlight=False),
    )
