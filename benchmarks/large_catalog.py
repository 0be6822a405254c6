"""Memory and time of a training step by number of items, with the exact softmax over all of them.

    python benchmarks/large_catalog.py results/performance/large_catalog.jsonl
    python benchmarks/large_catalog.py results/performance/large_catalog.jsonl --items 1000000
    python benchmarks/large_catalog.py results/performance/large_catalog.jsonl \\
        --picture docs/large_catalog.svg

For each number of items, trains on random histories in a process of its own, on all devices, and
appends one JSON line: seconds per step (the median), the peak resident memory of the process, and
on a GPU the peak of bytes in use on it. `--picture` measures nothing: it draws the newest lines of
the device that the last line of the file names.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import tyro

from bert4rec_jax.figures import line_chart, svg


def main(
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")],
    items: tuple[int, ...] = (10_000, 100_000, 300_000, 1_000_000),
    dim: int = 64,
    batch_size: int = 32,
    max_length: int = 50,
    steps: int = 3,
    negatives: int = 0,
    one: bool = False,
    picture: Path | None = None,
) -> None:
    """Measure, or draw what was measured.

    Args:
        output: JSON lines, which are added to.
        items: Sizes of the catalog.
        dim: Width D.
        batch_size: Rows of a step.
        max_length: Positions of a row, all in use; a fifth is masked.
        steps: Steps that are timed, after one that compiles.
        negatives: 0: the softmax is over all items. Above: over the targets of the batch and so
            many items drawn uniformly.
        one: Measure in this process.
        picture: Draw the lines of the file instead.
    """
    if picture is not None:
        picture.write_text(draw([json.loads(line) for line in output.read_text().splitlines()]))
        return
    if one:
        print(json.dumps(measure(items[0], dim, batch_size, max_length, steps, negatives)))
        return
    for count in items:
        command = [
            sys.executable, __file__, str(output), "--one", "--items", str(count), "--dim",
            str(dim), "--batch-size", str(batch_size), "--max-length", str(max_length),
            "--steps", str(steps), "--negatives", str(negatives),
        ]  # fmt: skip
        child = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if child.returncode:
            sys.exit(f"{count} items: failed")
        line = child.stdout.splitlines()[-1]
        print(line, flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("a") as file:
            file.write(line + "\n")


def measure(
    items: int, dim: int, batch_size: int, max_length: int, steps: int, negatives: int
) -> dict[str, Any]:
    """Time some steps in this process."""
    import jax
    import numpy as np

    from bert4rec_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
    from bert4rec_jax.data.batch import Batch
    from bert4rec_jax.data.catalog import FIRST_ITEM, ROW_MULTIPLE
    from bert4rec_jax.sharding import Along, global_rows, make_mesh, put
    from bert4rec_jax.training.description import describe

    num_rows = -(-(items + FIRST_ITEM) // ROW_MULTIPLE) * ROW_MULTIPLE
    config = Config(
        data=DataConfig(max_length=max_length),
        model=ModelConfig(dim=dim, heads=2, layers=2, ffn_dim=4 * dim),
        training=TrainingConfig(
            batch_size=batch_size,
            in_batch_negatives=negatives and batch_size * max_length,
            uniform_negatives=negatives,
        ),
    )
    mesh = make_mesh()
    described = describe(config, mesh, num_rows=num_rows)
    state = described.create()
    rows = np.arange(num_rows)
    trained = (rows >= FIRST_ITEM) & (rows < items + FIRST_ITEM)
    constants = described.constants._replace(in_softmax=put(mesh, Along.ITEMS, trained))
    if negatives:
        share = np.full(num_rows, 1 / items, np.float32)
        constants = constants._replace(target_share=put(mesh, Along.ITEMS, share))
    generator = np.random.default_rng(0)
    shape = (batch_size, max_length)

    def batch() -> Batch:
        return Batch(
            tokens=generator.integers(FIRST_ITEM, items + FIRST_ITEM, shape).astype(np.int32),
            thumbs=np.zeros(shape, np.int8),
            positions=np.broadcast_to(np.arange(max_length, dtype=np.int32), shape),
            segments=np.ones(shape, np.int32),
            examples=np.broadcast_to(np.arange(batch_size, dtype=np.uint32)[:, None], shape),
            days=np.zeros(shape, np.float32),
            since=np.zeros(shape, np.int32),
        )

    seconds = []
    for _ in range(steps + 1):
        begun = time.perf_counter()
        state, metrics = described.step(state, global_rows(mesh, batch()), constants)
        loss = float(metrics["loss"])
        seconds.append(time.perf_counter() - begun)
    device = jax.devices()[0]
    held = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "items": items,
        "dim": dim,
        "batch_size": batch_size,
        "max_length": max_length,
        "slots": batch_size * described.slots,
        "negatives": negatives,
        "seconds_per_step": round(statistics.median(seconds[1:]), 4),
        "first_step_s": round(seconds[0], 1),
        "peak_resident_gb": round(
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 3
        ),
        "peak_device_gb": None if held is None else round(held / 1e9, 3),
        "loss": round(loss, 4),
        "device": f"{jax.device_count()} x {device.device_kind}",
        "jax": jax.__version__,
        "date": date.today().isoformat(),
    }


def draw(lines: list[dict[str, Any]]) -> str:
    """Draw memory and time by number of items, from the newest lines of the last line's device.

    There is one curve for the exact softmax, and one for each number of negatives.
    """
    device = lines[-1]["device"]
    kept = {(line["negatives"], line["items"]): line for line in lines if line["device"] == device}
    on_device = lines[-1]["peak_device_gb"] is not None
    memory = "peak_device_gb" if on_device else "peak_resident_gb"
    title = f"D = {lines[-1]['dim']}, {lines[-1]['slots']} slots, {device}"
    charts = [
        _chart(f"Memory of a training step, GB ({title})", kept, memory),
        _chart(f"Seconds per step ({title})", kept, "seconds_per_step"),
    ]
    height = 360
    placed = [
        chart.replace("<svg ", f'<svg y="{number * height}" width="720" height="{height}" ', 1)
        for number, chart in enumerate(charts)
    ]
    return svg(720, height * len(charts), "Memory and time against the size of the catalog", placed)


def _chart(title: str, lines: dict[tuple[int, int], dict[str, Any]], value: str) -> str:
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for (negatives, items), line in sorted(lines.items()):
        curves[f"{negatives} drawn" if negatives else "exact"].append((items / 1e3, line[value]))
    return line_chart(title, curves, over="thousand items")


if __name__ == "__main__":
    tyro.cli(main)
