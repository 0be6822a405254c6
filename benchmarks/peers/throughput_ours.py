"""Training throughput of this package: its plan, pipeline, packing and compiled step.

Rows are packed, so a step holds about as many histories as a peer's batch, in fewer rows.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from report import DROPOUT, LEARNING_RATE, LENGTH, MASK_RATE, parser, ready, report

from bert4rec_jax.config import (
    Config,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.pipeline import StepToBatch, batches
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.data.thumbs import default_thresholds
from bert4rec_jax.sharding import Along, cores_as_devices, make_mesh, platform, put
from bert4rec_jax.training.coverage import make_plan
from bert4rec_jax.training.parts import Sizes, make_parts
from bert4rec_jax.training.step import Constants


def main() -> None:
    """Measure and print the line."""
    asked = parser()
    asked.add_argument("--at-once", type=int, default=8)
    asked.add_argument("--trace", help="a folder for a profile of one stride more")
    options = asked.parse_args()
    store = SequenceStore.open(Path(options.data).with_suffix(".store"))
    data = DataConfig(max_length=LENGTH, window="recent", pack=True)
    fused = options.bfloat16 and not options.attention_dropout
    config = Config(
        data=data,
        model=ModelConfig(
            dim=options.width, heads=options.heads, layers=options.layers, ffn_dim=options.ffn,
            dropout=DROPOUT, attention_dropout=options.attention_dropout,
            attention="fused" if fused else "plain",
            dtype="bfloat16" if options.bfloat16 else "float32",
        ),
        masking=MaskingConfig(rate=MASK_RATE, last_only=0),
        optimizer=OptimizerConfig(schedule="constant", peak_lr=LEARNING_RATE, warmup_steps=1),
    )  # fmt: skip
    epoch = make_plan(config, store, store.offsets[1:]).epoch(0)
    rows = round(options.batch * epoch.num_rows / epoch.num_examples)
    cores = len(os.sched_getaffinity(0))
    cores_as_devices(cores)  # before JAX is asked for its backend
    if jax.default_backend() == "cpu":
        rows -= rows % cores
    elif rows > 64:
        rows -= rows % 64  # else XLA copies whole arrays to pad them for its products
    config = replace(config, training=TrainingConfig(batch_size=rows))
    plan = make_plan(config, store, store.offsets[1:])
    mesh = make_mesh()
    parts = make_parts(
        config,
        Sizes(store.catalog.num_rows),
        total_steps=1,
        fused=fused and platform(mesh) == "gpu",
    )
    state = parts.create_state(mesh)
    constants = Constants(put(mesh, Along.ITEMS, store.catalog.is_item()), {})
    train_step = parts.train_step(mesh, state, constants, steps_per_epoch=plan.steps_per_epoch)
    at_once = 1 if jax.default_backend() == "cpu" else options.at_once
    if options.warmup % at_once or options.steps % at_once:
        sys.exit(f"--warmup and --steps have to be multiples of --at-once, which is {at_once}")
    total = options.warmup + options.steps
    strides = np.arange(0, total, at_once)[:, None] + [0, 0]
    strides[:, 1] = at_once
    to_batch = StepToBatch(plan, store, default_thresholds(None))
    losses: list[float] = []
    last, sequences, products = None, 0, 0.0
    with contextlib.ExitStack() as turn:
        for (step, _), batch in zip(strides, batches(to_batch, strides)):
            if step == options.warmup:
                losses.extend(np.ravel(last))
                last = None
                turn.enter_context(ready())
                start = time.perf_counter()
            if step >= options.warmup:
                lengths = np.bincount(_history(batch))[1:]
                lengths = lengths[lengths > 0]
                sequences += len(lengths)
                products += useful_operations(lengths, len(store.catalog), config.model)
            state, metrics = train_step(state, train_step.place(batch), constants)
            if last is not None:  # as in the training loop, fetched while the next steps run
                losses.extend(np.ravel(last))
            last = metrics["loss"]
        losses.extend(np.ravel(last))
        seconds = time.perf_counter() - start
        if options.trace:
            with jax.profiler.trace(options.trace):
                state, metrics = train_step(state, train_step.place(batch), constants)
                jax.block_until_ready(metrics)
        limit = product_limit(jnp.bfloat16 if options.bfloat16 else jnp.float32)
    report(
        "BERT4Rec-JAX",
        seconds=seconds,
        steps=options.steps,
        sequences=sequences,
        losses=losses,
        packages=("jax", "flax"),
        useful_gflop_per_s=round(products / seconds / 1e9, 1),
        product_limit_gflop_per_s=round(limit / 1e9, 1),
        share_of_limit=round(products / seconds / limit, 3),
        width=options.width,
        layers=options.layers,
        bfloat16=options.bfloat16,
        attention_dropout=options.attention_dropout,
        at_once=at_once,
    )


def _history(batch) -> np.ndarray:
    """The number of the history at each position of one or several batches; 0 on padding."""
    segments = batch.segments.reshape(-1, batch.segments.shape[-1])
    numbered = np.arange(len(segments))[:, None] * (segments.max() + 1) + segments
    return np.where(segments > 0, numbered, 0).ravel()


def useful_operations(lengths: np.ndarray, items: int, model: ModelConfig) -> float:
    """Operations of the matrix products that histories of these lengths need, in both passes.

    A multiplication and its addition are 2 operations, and each product of the forward pass needs 2
    more in the backward pass. Counted are projections and feed-forward per item, attention within a
    history, transform and logits per masked item; work added by padding, packing and recomputation
    is not.
    """
    masked = np.maximum(1, np.round(MASK_RATE * lengths))
    per_item = model.layers * (4 * model.dim**2 + 2 * model.dim * model.ffn_dim)
    attention = model.layers * 2 * model.dim * (lengths.astype(float) ** 2).sum()
    head = masked.sum() * (model.dim**2 + model.dim * items)
    return 6 * float(lengths.sum() * per_item + attention + head)


def product_limit(dtype: Any, repeats: int = 5) -> float:
    """Operations per second of a product of large square matrices in JAX, the best of `repeats`."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(jnp.matmul)
    product(matrix, matrix).block_until_ready()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    main()
