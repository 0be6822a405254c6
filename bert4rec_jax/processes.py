"""Multi-process runs: how processes find each other and synchronise, and which one writes."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import jax
import numpy as np

from bert4rec_jax.errors import UserError

_ADDRESS, _COUNT, _ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def start_processes() -> None:
    """Join the other processes of this run, if there are any; call before JAX is used.

    On TPU VMs, and under Slurm and Open MPI, JAX detects the processes itself. Elsewhere set
    JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UserError: only some of the variables are set, or the last two are not whole numbers.
    """
    if jax.distributed.is_initialized():
        return
    given = {name: os.environ.get(name) for name in (_ADDRESS, _COUNT, _ID)}
    if any(given.values()):
        missing = [name for name, value in given.items() if not value]
        if missing:
            raise UserError(
                f"{', '.join(missing)} is not set; several processes need all of "
                f"{_ADDRESS}, {_COUNT} and {_ID}"
            )
        try:
            count, number = int(given[_COUNT] or ""), int(given[_ID] or "")
        except ValueError:
            raise UserError(
                f"{_COUNT}={given[_COUNT]!r} and {_ID}={given[_ID]!r} have to be whole numbers"
            ) from None
        jax.distributed.initialize(given[_ADDRESS], count, number)
    elif _on_tpu_vm() or _launched_together():
        jax.distributed.initialize()


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return _alone() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has reached this call."""
    if not _alone():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def everywhere(here: bool) -> bool:
    """Whether `here` is true in every process; all processes have to call this."""
    if _alone():
        return here
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(here))))


def _alone() -> bool:
    """Whether this is the only process; does not start JAX's devices if it is."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def _on_tpu_vm() -> bool:
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def _launched_together() -> bool:
    sizes = (os.environ.get(name, "1") for name in ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(size.isdigit() and int(size) > 1 for size in sizes)
