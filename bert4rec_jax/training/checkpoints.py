"""Checkpoints: the train state, with a record that tells which run it belongs to.

Orbax writes the files. This module adds the record, decides which checkpoints are kept (the newest
and the best), and falls back to the previous checkpoint when one cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from bert4rec_jax.config import completed, differences
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.processes import barrier, everywhere
from bert4rec_jax.sharding import place_state
from bert4rec_jax.training.step import TrainState

_CORRUPT = ".corrupt"
T = TypeVar("T")


@dataclass(frozen=True)
class RunRecord:
    """What a checkpoint stores about its run, as JSON values.

    Attributes:
      config: the run's config in JSON form.
      catalog: fingerprint of the catalog, which maps rows of the item table to items.
      data: fingerprint of the prepared data.
      validations: one dict per validation so far: `step` and the metrics.
      checksum: checksum of the state that is saved with the record.
      content: fingerprint of the item features, empty without any.
      users: fingerprint of the user features, empty without any.
      seconds: time spent in training and validation so far, of all starts; steps that were lost are
        not counted.
    """

    config: dict[str, Any]
    catalog: str
    data: str
    validations: list[dict[str, float]] = field(default_factory=list)
    checksum: int = 0
    content: str = ""
    users: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Checkpoint:
    """A restored checkpoint."""

    step: int
    state: TrainState
    record: RunRecord


class Checkpoints:
    """The checkpoints of one run in one folder.

    Args:
      folder: where they are stored; created when training.
      metric: the validation metric that decides which checkpoint is the best.
      keep: how many of the newest checkpoints to keep in addition to the best. None opens the
        folder read-only: nothing in it is created, renamed or removed, because a training may be
        writing there.
      warn: called with a message for every checkpoint that cannot be read.

    Raises:
      UserError: the folder cannot be created or read.
    """

    def __init__(
        self, folder: Path, *, metric: str, keep: int | None, warn: Callable[[str], None]
    ) -> None:
        self._folder = folder.resolve()
        self._metric = metric
        self._keep = keep
        self._warn = warn
        self._manager = self._open()

    def save(self, state: TrainState, record: RunRecord) -> None:
        """Start saving; the files are written in the background.

        Raises:
          UserError: an earlier save failed, or this one cannot start.
        """
        step = int(state.step)
        signed = replace(record, checksum=checksum(state))
        now = record.validations[-1] if record.validations else None
        metrics = now if now and now["step"] == step else None
        self.wait()  # an error raised here is about an earlier save
        with self._failures(step):
            if step in self.steps():
                if metrics is None or self._manager.metrics(step) is not None:
                    return
                # The step was saved on an interruption and validated later: save it with metrics.
                self._manager.delete(step)
            with _without_warnings():  # Orbax warns about missing metrics
                saved = self._manager.save(
                    step,
                    metrics=metrics,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardSave(state),
                        record=ocp.args.JsonSave(asdict(signed)),
                    ),
                )
        if not saved:
            raise UserError(
                f"{self._folder} already holds a checkpoint later than step {step}; move the "
                "folder away or use another workdir"
            )

    def check(self) -> None:
        """Raise the error of a failed background write, if there was one.

        Raises:
          UserError: a write failed; the message names the last good checkpoint.
        """
        with self._failures(None):
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Wait until everything is on disk.

        Raises:
          UserError: a write failed; the message names the last good checkpoint.
        """
        with self._failures(None):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for pending writes and close the folder."""
        with contextlib.suppress(Exception):
            self._manager.close()

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def restore_latest(
        self, abstract: TrainState, mesh: Mesh, current: RunRecord
    ) -> Checkpoint | None:
        """Restore the newest readable checkpoint, sharded over the mesh; None if there are none.

        If a checkpoint cannot be read, the one before it is tried. When training, the unreadable
        one is renamed to `STEP.corrupt`.

        Args:
          abstract: shapes and dtypes of the state.
          mesh: devices to restore to; they may differ from those that saved.
          current: the record of the run that is to be continued.

        Raises:
          UserError: the checkpoint belongs to another config, catalog, data or features; or none
            can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            restored = self._try(step, abstract, mesh, current)
            if restored is not None:
                return restored
            if self._keep is not None:
                self._set_aside(step)
        if steps:
            state = f"they are kept as *{_CORRUPT}"
            if self._keep is None:
                state = "if a training is writing there, try again"
            raise UserError(
                f"none of the {len(steps)} checkpoints in {self._folder} can be read; {state}. "
                "Start again in another workdir, or move this one away"
            )
        return None

    def restore(
        self, step: int, abstract: TrainState, mesh: Mesh, current: RunRecord
    ) -> Checkpoint:
        """Restore one checkpoint; arguments as for `restore_latest`.

        Raises:
          UserError: it does not exist, cannot be read, or belongs to another config, catalog, data
            or features.
        """
        restored = self._try(step, abstract, mesh, current) if step in self.steps() else None
        if restored is None:
            raise UserError(f"the checkpoint of step {step} in {self._folder} cannot be read")
        return restored

    def best_steps(self, validations: list[dict[str, float]]) -> list[int]:
        """Validated steps that still have a checkpoint, best first; of equals the later first."""
        saved = set(self.steps())
        ranked = sorted(validations, key=lambda v: (v[self._metric], v["step"]), reverse=True)
        return [int(v["step"]) for v in ranked if v["step"] in saved]

    def _try(
        self, step: int, abstract: TrainState, mesh: Mesh, current: RunRecord
    ) -> Checkpoint | None:
        record = self._read(step, lambda: self._read_record(step))
        if record is None:
            return None
        _check_same_run(record, current, self._folder)
        target = jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            abstract,
            place_state(mesh, abstract),
        )
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
        state = self._read(step, lambda: self._manager.restore(step, args=args)["state"])
        if state is None:
            return None
        if checksum(state) != record.checksum:  # over all shards, so all processes agree
            self._unreadable(step, "its content does not match its checksum")
            return None
        return Checkpoint(step, state, record)

    def _read(self, step: int, read: Callable[[], T]) -> T | None:
        """The result of `read`; None in every process if it fails in any of them."""
        found, reason = None, "another process could not read it"
        try:
            found = read()
        except Exception as error:
            reason = _first_line(error)
        if everywhere(found is not None):
            return found
        self._unreadable(step, reason)
        return None

    def _unreadable(self, step: int, reason: str) -> None:
        self._warn(f"checkpoint {step} in {self._folder} cannot be read ({reason})")

    def _read_record(self, step: int) -> RunRecord:
        read = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))[
            "record"
        ]
        return RunRecord(**read)

    def _set_aside(self, step: int) -> None:
        """Rename a damaged checkpoint, so that later saves of the same step are not refused."""
        self._manager.close()
        self._rename(step)
        self._manager = self._open()

    def _rename(self, step: int) -> None:
        """Rename the folder of a damaged checkpoint in the first process; all processes wait."""
        if jax.process_index() == 0:
            damaged = self._folder / str(step)
            target = damaged.with_name(f"{step}{_CORRUPT}")
            number = 1
            while target.exists():
                number += 1
                target = damaged.with_name(f"{step}{_CORRUPT}.{number}")
            damaged.rename(target)
        barrier(f"checkpoint {step} is set aside")

    def _open(self) -> ocp.CheckpointManager:
        if self._keep is None:
            return _manager(self._folder, _reading())
        for step in _without_metrics(self._folder):
            self._unreadable(step, "its metrics are damaged")
            self._rename(step)
        return _manager(self._folder, self._training(self._keep))

    def _training(self, keep: int) -> ocp.CheckpointManagerOptions:
        best = BestN(get_metric_fn=self._of, n=1, keep_checkpoints_without_metrics=False)
        return ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
            best_fn=self._of,
            best_mode="max",
            create=True,
            cleanup_tmp_directories=True,
        )

    def _of(self, metrics: dict[str, float]) -> float:
        return metrics[self._metric]

    @contextlib.contextmanager
    def _failures(self, step: int | None) -> Iterator[None]:
        """Turn any failure into a `TemporaryError` that names the last good checkpoint."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            what = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            good = self.steps()
            last = f"the last good one is step {good[-1]}" if good else "there is no earlier one"
            raise TemporaryError(
                f"{what} could not be saved in {self._folder}: {_first_line(error)}; {last}. Make "
                "room or choose another workdir, then run the same command to continue"
            ) from error


def read_config(folder: Path) -> dict[str, Any] | None:
    """The config, in JSON form, of the run whose checkpoints are in `folder`; None without any.

    It is read without Orbax and JAX, whose devices may not be chosen yet.

    Raises:
      TemporaryError: the folder cannot be read.
    """
    if not folder.is_dir():
        return None
    try:
        steps = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except OSError as error:
        raise _cannot_open(folder, error) from error
    for step in sorted(steps, reverse=True):
        with contextlib.suppress(OSError, ValueError, LookupError):
            record = json.loads((folder / f"{step}" / "record" / "metadata").read_text("utf-8"))
            return dict(record["config"])
    return None


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    try:
        return ocp.CheckpointManager(folder, options=options)
    except OSError as error:
        raise _cannot_open(folder, error) from error


def _cannot_open(folder: Path, error: OSError) -> TemporaryError:
    return TemporaryError(
        f"cannot open the checkpoints in {folder}: {error.strerror or error}; change its "
        "permissions or choose another workdir"
    )


def _without_metrics(folder: Path) -> list[int]:
    """Steps whose metrics file is damaged; a single one keeps Orbax from opening any checkpoint.

    All processes see the same files, so they find the same steps.
    """
    damaged = []
    for file in folder.glob("*/metrics/metrics"):
        if file.parents[1].name.isdecimal():
            try:
                json.loads(file.read_text(encoding="utf-8"))
            except ValueError:
                damaged.append(int(file.parents[1].name))
    barrier("metrics of checkpoints are read")
    return sorted(damaged)


def _reading() -> ocp.CheckpointManagerOptions:
    """Options that create and remove nothing in the folder."""
    return ocp.CheckpointManagerOptions(create=False, lightweight_initialize=True)


def check_same_config(saved: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    """Check that a run is continued with the same settings.

    Raises:
      UserError: it is not; the message names every field that differs.
    """
    changed = differences(completed(saved), completed(current))
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(
            f"{folder} holds a run with another configuration:\n  {listed}\n"
            "use the same settings to continue it, or another --workdir (with --init-from "
            f"{folder} it begins from the parameters of this one)"
        )


def _check_same_run(saved: RunRecord, current: RunRecord, folder: Path) -> None:
    check_same_config(saved.config, current.config, folder)
    if saved.catalog != current.catalog:
        raise UserError(
            f"the catalog does not match the checkpoints in {folder} (fingerprint "
            f"{saved.catalog[:12]} there, {current.catalog[:12]} in the data): items would get "
            "each other's vectors. Use the data of that run (prepare newer logs into folders of "
            "their own), or another --workdir"
        )
    if saved.data != current.data:
        raise UserError(
            f"the data does not match the checkpoints in {folder} (fingerprint {saved.data[:12]} "
            f"there, {current.data[:12]} now). Use the data of that run, or another --workdir"
        )
    if saved.content != current.content:
        raise UserError(
            f"the items' content does not match the checkpoints in {folder} (fingerprint "
            f"{saved.content[:12] or 'none'} there, {current.content[:12] or 'none'} now). Use "
            "the content of that run, or another --workdir"
        )
    if saved.users != current.users:
        raise UserError(
            f"what is known of users does not match the checkpoints in {folder} (fingerprint "
            f"{saved.users[:12] or 'none'} there, {current.users[:12] or 'none'} now). Use the "
            "table of users of that run, or another --workdir"
        )


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def checksum(state: TrainState) -> int:
    """Checksum of all bits of a state; a corrupted state keeps it with a chance of about 1 in 2^32.

    `sum_i bits_i * odd_i mod 2^32` over all elements, with an odd factor per element: the same on
    every mesh. It is needed because Orbax notices missing files, but not every change of their
    bytes.
    """
    return int(_checksum(state))


@jax.jit
def _checksum(state: TrainState) -> jax.Array:
    total = jnp.uint32(0)
    for number, leaf in enumerate(jax.tree.leaves(state)):
        width = jnp.dtype(f"uint{8 * leaf.dtype.itemsize}")
        bits = jax.lax.bitcast_convert_type(leaf, width).astype(jnp.uint32)
        place = jnp.uint32(number)
        for axis in range(leaf.ndim):
            index = jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
            place = place * jnp.uint32(0x9E3779B1) + index
        total += (bits * (2 * place + 1)).sum(dtype=jnp.uint32)
    return total


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the warnings that Orbax logs."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(max(before, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(before)
