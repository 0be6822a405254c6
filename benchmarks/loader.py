"""Examples per second of the data loader alone, compared with those of the train step.

    python benchmarks/loader.py
    python benchmarks/loader.py data/ml-1m

Without a store, random histories with lengths like those of MovieLens-1M are used: 6,040 users,
3,416 items, at least 20 interactions each, 165 on average, the longest a few thousand (log-normal).
The model is small (width 64, 2 layers), so it consumes examples faster than those of the recipes;
rows have 200 positions, and a step holds about 128 histories, packed. The loader runs for whole
epochs, including their plans; the step is repeated on one batch that is already on the device, so
it never waits for data. An example is a user's history. Prints one JSON line; `ratio` should be 3
or more.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import pyarrow as pa
import tyro

from bert4rec_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from bert4rec_jax.data.batch import Batch
from bert4rec_jax.data.interactions import Interactions
from bert4rec_jax.data.pipeline import StepToBatch, batches
from bert4rec_jax.data.store import SequenceStore, write_store
from bert4rec_jax.entry import tune_memory
from bert4rec_jax.sharding import Along, global_rows, make_mesh, put
from bert4rec_jax.training.coverage import make_plan
from bert4rec_jax.training.parts import Sizes, make_parts
from bert4rec_jax.training.step import Constants

_HISTORIES = 128  # per step
_THUMBS = (3.0, 4.5)


def main(
    data: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[STORE]")] = None,
    epochs: int = 20,
    steps: int = 20,
    warmup: int = 3,
    seed: int = 0,
) -> None:
    """Measure.

    Args:
        data: A folder made by `bert4rec prepare`. None: drawn lengths.
        epochs: Epochs that the loader runs through.
        steps: Train steps that are measured.
        warmup: Steps before the clock starts, compilation among them.
        seed: Of the drawn lengths.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = SequenceStore.open(data) if data else _drawn(Path(folder) / "store", seed)
        config = Config(
            data=DataConfig(max_length=200, window="recent", pack=True),
            model=ModelConfig(dim=64, layers=2, heads=2, ffn_dim=256),
        )
        epoch = make_plan(config, store, store.offsets[1:]).epoch(0)
        rows = round(_HISTORIES * epoch.num_rows / epoch.num_examples)
        rows = -(-rows // jax.device_count()) * jax.device_count()
        config = Config(
            data=config.data, model=config.model, training=TrainingConfig(batch_size=rows)
        )
        loader, batch = _loader(config, store, epochs)
        step = _step(config, store, batch, warmup, steps)
    line = {
        "n": store.num_interactions,
        "users": store.num_users,
        "mean_length": round(float(np.minimum(store.lengths, config.data.max_length).mean()), 1),
        "histories_per_step": round(_examples(batch)),
        "loader_examples_per_s": round(loader),
        "step_examples_per_s": round(step, 1),
        "ratio": round(loader / step, 1),
    }
    print(json.dumps(line))


def _drawn(path: Path, seed: int) -> SequenceStore:
    """Write a store of random items; only the lengths of histories matter."""
    generator = np.random.default_rng(seed)
    drawn = np.exp(generator.normal(4.4, 1.1, 6_040)).astype(np.int64)
    lengths = 20 + np.minimum(drawn, 2_300)
    count = int(lengths.sum())
    log = Interactions(
        users=np.repeat(np.arange(len(lengths), dtype=np.int32), lengths),
        items=generator.integers(0, 3_416, count).astype(np.int32),
        timestamps=956_703_932 + np.arange(count),
        ratings=generator.integers(1, 6, count).astype(np.float32),
        user_ids=pa.array(range(len(lengths))).cast(pa.string()),
        item_ids=pa.array(range(3_416)).cast(pa.string()),
    )
    return write_store(log, path, titles={}, source={"name": "drawn lengths"})


def _examples(batch: Batch) -> int:
    """The number of histories in a batch."""
    return int(batch.segments.max(axis=1).sum())


def _loader(config: Config, store: SequenceStore, epochs: int) -> tuple[float, Batch]:
    """Examples per second of the pipeline that training reads from, and one of its batches."""
    plan = make_plan(config, store, store.offsets[1:])
    stop = epochs * plan.steps_per_epoch
    examples, start = 0, time.perf_counter()
    strides = np.stack([np.arange(stop), np.ones(stop, np.int64)], axis=1)
    for batch in batches(StepToBatch(plan, store, _THUMBS), strides):
        examples += _examples(batch)
    seconds = time.perf_counter() - start
    return examples / seconds, StepToBatch(plan, store, _THUMBS)(0)


def _step(config: Config, store: SequenceStore, batch: Batch, warmup: int, steps: int) -> float:
    """Examples per second of the train step, on a batch that is already on the device."""
    mesh = make_mesh()
    parts = make_parts(config, Sizes(store.catalog.num_rows), total_steps=1000)
    state = parts.create_state(mesh)
    constants = Constants(put(mesh, Along.ITEMS, store.catalog.is_item()), {})
    train_step = parts.train_step(mesh, state, constants, steps_per_epoch=1000)
    on_device = global_rows(mesh, batch)
    for number in range(warmup + steps):
        if number == warmup:
            jax.block_until_ready(state)
            start = time.perf_counter()
        state, _ = train_step(state, on_device, constants)
    jax.block_until_ready(state)
    return _examples(batch) * steps / (time.perf_counter() - start)


if __name__ == "__main__":
    tune_memory()
    tyro.cli(main)
