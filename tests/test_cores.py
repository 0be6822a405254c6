"""Cores as devices: how many, and when the command leaves it to the user."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
os.sched_getaffinity = lambda _: set(range(int(sys.argv[1])))
import jax
from bert4rec_jax.sharding import cores_as_devices
if len(sys.argv) > 4:
    jax.devices()
cores_as_devices(int(sys.argv[2]), int(sys.argv[3]), **json.loads(os.environ["MESH"]))
print(json.dumps(jax.device_count()))
"""


def devices(cores, *batches, flags="", begun=False, **mesh):
    environment = {
        **os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "MESH": json.dumps(mesh),
    }  # fmt: skip
    arguments = [str(cores), *map(str, batches), *(["begun"] if begun else [])]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere cores are counted otherwise")
@pytest.mark.parametrize(
    ("cores", "batches", "expected"),
    [
        (1, (32, 256), 1),
        (2, (32, 256), 2),
        (16, (32, 256), 4),  # at most four
        (4, (30, 256), 2),  # neither four nor three split both
        (4, (33, 256), 1),
    ],
)
def test_as_many_as_split_the_batches(cores, batches, expected):
    assert devices(cores, *batches) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere cores are counted otherwise")
@pytest.mark.parametrize(
    ("cores", "mesh", "expected"),
    [
        (4, {"model": 2}, 4),
        (4, {"model": 3}, 3),
        (2, {"model": 4}, 4),  # more than there are cores
        (2, {"data": 4, "model": 2}, 8),
        (4, {"data": 1}, 1),
    ],
)
def test_a_mesh_gets_the_devices_that_it_needs(cores, mesh, expected):
    assert devices(cores, 32, 256, **mesh) == expected


def test_whoever_chose_a_number_keeps_it():
    flags = "--xla_force_host_platform_device_count=3"
    assert devices(4, 32, 256, flags=flags) == 3
    assert devices(4, 32, 256, begun=True) == 1, "JAX was in use"


ADAPTING = """
from dataclasses import replace
from bert4rec_jax.config import Config

config = Config()

def adapt(config, store):
    return replace(config, training=replace(config.training, batch_size=30))
"""
ADAPTED = """
import os, sys
os.sched_getaffinity = lambda _: set(range(4))
import jax
from bert4rec_jax.experiment.recipes import recipe
from bert4rec_jax.experiment.start import start
start(recipe(sys.argv[1], {"data.path": sys.argv[2], "workdir": sys.argv[3]}))
print(jax.device_count())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere cores are counted otherwise")
def test_the_batch_size_that_a_recipe_derives_from_the_data_decides(store, tmp_path):
    """Not the one that it has before: 128 splits over four devices, 30 and 256 over two."""
    file = tmp_path / "odd.py"
    file.write_text(ADAPTING)
    done = subprocess.run(
        [sys.executable, "-c", ADAPTED, str(file), str(store.path), str(tmp_path / "run")],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) == 2
