"""Checkpoints: the train state, with a record that tells which run it belongs to.

Orbax writes the files. This module adds the record, decides which checkpoints are kept (the newest
and the best), and falls back to the previous checkpoint when one cannot be read.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from bert4rec_jax.errors import TemporaryError, UserError, first_line
from bert4rec_jax.processes import barrier, everywhere
from bert4rec_jax.sharding import place_state
from bert4rec_jax.training.digests import checksum
from bert4rec_jax.training.run_record import RunRecord, cannot_open, check_same_run
from bert4rec_jax.training.step import TrainState

_CORRUPT = ".corrupt"
T = TypeVar("T")


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
        check_same_run(record, current, self._folder)
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
            reason = first_line(error)
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
                f"{what} could not be saved in {self._folder}: {first_line(error)}; {last}. Make "
                "room or choose another workdir, then run the same command to continue"
            ) from error


def _manager(folder: Path, options: ocp.CheckpointManagerOptions) -> ocp.CheckpointManager:
    try:
        return ocp.CheckpointManager(folder, options=options)
    except OSError as error:
        raise cannot_open(folder, error) from error


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
