"""Eight fake CPU devices for the whole suite, and small data sets to learn from.

Most of the suite's time is compilation. So what is compiled once, in any test or process, is kept
for the others, and XLA is asked for what compiles soonest: the laws hold without optimisation.
"""

import atexit
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
QUICK = ("--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false")
DEVICES = "--xla_force_host_platform_device_count"


def quick() -> str:
    """The flags of QUICK that this version of XLA has; it aborts where it does not know one."""
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    for count in range(len(QUICK), 0, -1):
        flags = " ".join(QUICK[:count])
        run = subprocess.run(start, env={**os.environ, "XLA_FLAGS": flags}, capture_output=True)
        if run.returncode == 0:
            return flags
    return ""


if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers are told by the first process
    os.environ["XLA_FLAGS"] = f"{quick()} {DEVICES}=8"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import Mesh  # noqa: E402
from sample import interactions  # noqa: E402

from bert4rec_jax.data.store import SequenceStore, write_store  # noqa: E402
from bert4rec_jax.sharding import make_mesh  # noqa: E402


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


@pytest.fixture(scope="session", autouse=True)
def one_device():
    """Whole runs inside this process are on one device; tests of meshes make their own."""

    def mesh(**_):
        return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), make_mesh().axis_names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bert4rec_jax.experiment.opening.make_mesh", mesh)
        yield


@pytest.fixture(scope="session")
def environment():
    """Of a process with one device, compiled as quickly as the suite."""
    flags = os.environ["XLA_FLAGS"].replace(f"{DEVICES}=8", f"{DEVICES}=1")
    return {**os.environ, "XLA_FLAGS": flags, "COLUMNS": "200"}


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
