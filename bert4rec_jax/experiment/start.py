"""Start: the processes and devices of a run, before JAX is used."""

from __future__ import annotations

import bert4rec_jax
from bert4rec_jax.config import Config
from bert4rec_jax.processes import require_same, start_processes
from bert4rec_jax.sharding import cores_as_devices


def start(config: Config) -> None:
    """Join the other processes of a run, if there are any, and make CPU cores its devices.

    Raises:
      UserError: see `join`.
    """
    join()
    cores_as_devices(
        config.training.batch_size,
        config.evaluation.batch_size,
        data=config.mesh.data,
        model=config.mesh.model,
    )


def join() -> None:
    """Join the other processes of a run, if there are any.

    Raises:
      UserError: see `start_processes` and `require_same`: processes have other versions of the
        package, or other numbers of devices.
    """
    start_processes()
    require_same("version", {"bert4rec_jax": bert4rec_jax.__version__})
