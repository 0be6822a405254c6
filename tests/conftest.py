"""Eight fake CPU devices for the whole suite, and small data sets to learn from.

Most of the suite's time is compilation. So what is compiled once, in any test or process, is kept
for the others, and this process asks LLVM for no optimisation: the laws hold without it. The runs
of `train.py` in processes of their own are compiled as users' are.
"""

import atexit
import fcntl
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import numpy as np
import pytest
from sample import interactions

from bert4rec_jax.data.store import SequenceStore, write_store


@pytest.fixture(scope="session")
def store(once) -> SequenceStore:
    """60 users who walk through 40 items in steps of one or two: the next item can be learnt."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        position = int(generator.integers(40))
        for moment in range(int(generator.integers(5, 25))):
            rows.append((user, position % 40, moment, float(generator.integers(1, 11))))
            position += int(generator.integers(1, 3))
    unique = {(user, item): row for user, item, *row in reversed(rows)}
    rows = sorted((user, item, *rest) for (user, item), rest in unique.items())
    log = interactions(rows).in_time_order()
    folder = once("data", lambda made: write_store(log, made / "store", titles={}, source={}))
    return SequenceStore.open(folder / "store")


@pytest.fixture(scope="session")
def environment():
    """Of a process with one device, compiled as users' are."""
    return {**os.environ, "XLA_FLAGS": "", "COLUMNS": "200"}


@pytest.fixture(scope="session")
def quick_environment(environment):
    """Of a process with one device, compiled as in the suite."""
    return {**environment, "XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, make)`: a folder that all processes of a test run share, made by the first."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def shared(name, make):
        folder = base / name
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                made = base / f"{name}.made"
                shutil.rmtree(made, ignore_errors=True)
                made.mkdir()
                make(made)
                made.rename(folder)
        return folder

    return shared
