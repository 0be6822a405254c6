"""Multi-process runs: how processes find each other and synchronise, and which one writes."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert4rec_jax.errors import UserError, first_line

_ADDRESS, _COUNT, _ID = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"


def start_processes() -> None:
    """Join the other processes of this run, if there are any; call before JAX is used.

    On TPU VMs, and under Slurm and Open MPI, JAX detects the processes itself. Elsewhere set
    JAX_COORDINATOR_ADDRESS (host:port of the first process), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UserError: only some of the variables are set, the address has no port, or the last two are
        not whole numbers; or the processes do not find each other.
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
        address = given[_ADDRESS] or ""
        try:
            count, number = int(given[_COUNT] or ""), int(given[_ID] or "")
        except ValueError:
            raise UserError(
                f"{_COUNT}={given[_COUNT]!r} and {_ID}={given[_ID]!r} have to be whole numbers"
            ) from None
        host, _, port = address.rpartition(":")
        if not (host and port.isdecimal() and 0 < int(port) < 2**16):  # JAX aborts, or waits
            raise UserError(
                f"{_ADDRESS}={address!r} has to be the host of the first process and a port that "
                "is free there, such as host0:1234"
            )
        _join(f"process {number} of {count} at {address}", address, count, number)
    elif _on_tpu_vm() or _launched_together():
        _join("the processes that the launcher started")


def _join(what: str, *arguments: Any) -> None:
    # JAX's own handler of SIGTERM would replace that of commands, and only take note of the signal.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(*arguments)
    except (ValueError, RuntimeError, IndexError) as error:
        raise UserError(
            f"cannot join {what}: {first_line(error).rstrip('.')}. Start {_COUNT} processes with "
            f"the same {_ADDRESS}, whose port is free on the first one's host, and with {_ID} from "
            f"0 to {_COUNT} - 1"
        ) from error


def require_same(what: str, values: Mapping[str, Any]) -> None:
    """Check that values are the same in all processes, before they wait for each other in vain.

    Args:
      what: what the values are, for the message.
      values: by name, JSON values; all processes have the same names.

    Raises:
      UserError: processes have different numbers of devices, or some values differ; raised in
        every process.
    """
    if alone():
        return
    from jax.experimental import multihost_utils

    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        counts = ", ".join(f"process {n} has {devices[n]}" for n in sorted(devices))
        raise UserError(
            f"the processes of a run need the same number of devices each, but {counts}; on CPUs, "
            "XLA_FLAGS=--xla_force_host_platform_device_count=N sets it"
        )
    hashes = [hashlib.sha256(json.dumps(v).encode()).digest()[:4] for v in values.values()]
    here = np.frombuffer(b"".join(hashes), np.uint32)
    found = np.asarray(multihost_utils.process_allgather(here))
    differ = [name for name, column in zip(values, found.T) if len(set(column.tolist())) > 1]
    if differ:
        own = ", ".join(f"{name} = {values[name]!r}" for name in differ)
        raise UserError(
            f"the processes of this run differ in their {what}; process {jax.process_index()} has "
            f"{own}. Start all with the same command, on the same data and version of the package"
        )


def is_first() -> bool:
    """Whether this is the process that writes files and shows progress."""
    return alone() or jax.process_index() == 0


def barrier(name: str) -> None:
    """Wait until every process has reached this call."""
    if not alone():
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def everywhere(here: bool) -> bool:
    """Whether `here` is true in every process; all processes have to call this."""
    if alone():
        return here
    from jax.experimental import multihost_utils

    return bool(np.all(multihost_utils.process_allgather(np.array(here))))


def done_by_first(what: str, work: Callable[[], None]) -> None:
    """Do some work in the first process while the others wait; all processes have to call this.

    Raises:
      UserError: the work did, in the first process; in the others one that points to it.
    """
    failed: UserError | None = None
    if is_first():
        try:
            work()
        except UserError as error:
            failed = error
    if not everywhere(failed is None):
        raise failed or UserError(
            f"the first process of the run cannot {what}; its output says why"
        )


def alone() -> bool:
    """Whether this is the only process; does not start JAX's devices if it is."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def _on_tpu_vm() -> bool:
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def _launched_together() -> bool:
    sizes = [os.environ.get("OMPI_COMM_WORLD_SIZE", "1")]
    if "SLURM_STEP_NODELIST" in os.environ:  # not in a batch script itself, only under its `srun`
        sizes.append(os.environ.get("SLURM_NTASKS", "1"))
    return any(size.isdigit() and int(size) > 1 for size in sizes)
