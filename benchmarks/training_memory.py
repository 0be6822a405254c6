"""Memory of training by size of the log; it should not grow.

    python benchmarks/training_memory.py --rows 1000000 20000000

For each size, writes a synthetic store (same users and items, longer histories), trains a small
model on it for some steps in a process of its own, and prints one JSON line: the process's own
memory after the steps. Pages of the memory-mapped store are listed separately, because they are
shared and can be dropped at any time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tyro

_CHILD = """
import json, sys
from pathlib import Path
import optax
from rich.console import Console
from bert4rec_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.fit import fit
from bert4rec_jax.training.inputs import TrainingData
store = SequenceStore.open(Path(sys.argv[1]))
config = Config(
    data=DataConfig(max_length=50, window="recent"),
    model=ModelConfig(dim=32, layers=1),
    training=TrainingConfig(batch_size=64, save_every=10**6),
)
fit(config, TrainingData(store, (3, 4.5)), mesh=make_mesh(), stop=store.offsets[1:],
    folder=Path(sys.argv[2]), console=Console(quiet=True), title="", validate=None,
    steps=int(sys.argv[3]))
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
gb = {k: round(int(status[k].split()[0]) / 2**20, 3) for k in ("RssAnon", "RssFile")}
print(json.dumps({"own_gb": gb["RssAnon"], "file_pages_gb": gb["RssFile"]}))
"""


def main(
    rows: tuple[int, ...] = (1_000_000, 20_000_000),
    users: int = 50_000,
    items: int = 5_000,
    steps: int = 300,
) -> None:
    """Train on synthetic logs of several sizes.

    Args:
        rows: Interactions per log.
        users: Users that they belong to, equally many each, give or take one.
        items: Items, with popularity falling as 1/rank.
        steps: Steps of training.
    """
    for count in rows:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "store"
            _write(store, count, users, items)
            child = subprocess.run(
                [sys.executable, "-c", _CHILD, str(store), f"{folder}/run", str(steps)],
                capture_output=True,
                text=True,
            )
        if child.returncode:
            sys.exit(child.stderr)
        print(json.dumps({"rows": count, "steps": steps, **json.loads(child.stdout)}), flush=True)


def _write(path: Path, rows: int, users: int, items: int) -> None:
    import pyarrow as pa

    from bert4rec_jax.data.interactions import Interactions
    from bert4rec_jax.data.store import write_store

    generator = np.random.default_rng(0)
    popularity = 1 / np.arange(1, items + 1)
    log = Interactions(
        users=(np.arange(rows) * users // rows).astype(np.int32),
        items=generator.choice(items, rows, p=popularity / popularity.sum()).astype(np.int32),
        timestamps=np.arange(rows, dtype=np.int64),
        ratings=np.full(rows, np.nan, np.float32),
        user_ids=pa.array([str(user) for user in range(users)]),
        item_ids=pa.array([str(item) for item in range(items)]),
    )
    write_store(log, path, titles={}, source={})


if __name__ == "__main__":
    tyro.cli(main)
