"""Shared by all throughput scripts: their arguments, the batches of peers, and the line they print.

Needs only NumPy, so that it works in the environment of any peer. Items are 1 .. V, 0 is
padding and V + 1 stands for a masked item.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LENGTH, WIDTH, FFN, LAYERS, HEADS, BATCH, MASK_RATE, DROPOUT = 200, 64, 256, 2, 2, 128, 0.2, 0.2
LEARNING_RATE = 1e-3


class Rows(NamedTuple):
    """A batch with K = 40 slots for masked items.

    Attributes:
      tokens: `[B, L]`, masked, and padded on the right.
      slots: `[B, K]` masked positions; 0 where there are fewer than K.
      labels: `[B, K]` the items at these positions before masking; 0 for unused slots.
      live: `[B, K]` 1 for slots in use, else 0.
    """

    tokens: np.ndarray
    slots: np.ndarray
    labels: np.ndarray
    live: np.ndarray


class Histories:
    """Histories of at most `LENGTH` items, from the file that `train_throughput.py` writes."""

    def __init__(self, path: str):
        """Read `offsets [U + 1]`, `items [N]` (1 .. V) and `num_items`."""
        arrays = np.load(path)
        self.offsets, self.items = arrays["offsets"], arrays["items"]
        self.num_items = int(arrays["num_items"])

    def batches(self, seed: int = 0, size: int = BATCH) -> Iterator[Rows]:
        """Endless shuffled batches, masked with NumPy: round(rate * n) items of n, at least 1."""
        random = np.random.default_rng(seed)
        slots_per_row = int(MASK_RATE * LENGTH)
        while True:
            order = random.permutation(len(self.offsets) - 1)
            for start in range(0, len(order) - size + 1, size):
                users = order[start : start + size]
                lengths = np.diff(self.offsets)[users]
                column = np.arange(LENGTH)
                filled = column < lengths[:, None]
                tokens = np.zeros((size, LENGTH), np.int32)
                source = self.offsets[users][:, None] + column
                tokens[filled] = self.items[source[filled]]
                drawn = np.argsort(np.where(filled, random.random(tokens.shape), 2), axis=1)
                slots = drawn[:, :slots_per_row]
                count = np.maximum(1, np.round(MASK_RATE * lengths)).astype(int)
                live = np.arange(slots_per_row) < count[:, None]
                slots = np.where(live, slots, 0)
                labels = np.where(live, np.take_along_axis(tokens, slots, 1), 0)
                row, slot = np.nonzero(live)
                tokens[row, slots[row, slot]] = self.num_items + 1
                yield Rows(tokens, slots, labels, live.astype(np.float32))


def arguments() -> argparse.Namespace:
    """The parsed arguments of a throughput script."""
    return parser().parse_args()


def parser() -> argparse.ArgumentParser:
    """A parser of `data`, `warmup`, `steps`, and of the model's size, which some scripts use."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--heads", type=int, default=HEADS)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--ffn", type=int, default=FFN)
    parser.add_argument("--attention-dropout", type=float, default=DROPOUT)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--system", default="")
    return parser


@contextlib.contextmanager
def ready() -> Iterator[None]:
    """If a benchmark runs several systems at once, wait for this system's turn to be timed.

    The environment variable TURNS is FOLDER:COUNT. Each system that has compiled and warmed up puts
    a file into the folder. Once there are COUNT files, or no new one for a minute, the systems run
    one after the other.
    """
    if "TURNS" not in os.environ:
        yield
        return
    folder, count = os.environ["TURNS"].rsplit(":", 1)
    (Path(folder) / str(os.getpid())).touch()
    while len(there := list(Path(folder).glob("[0-9]*"))) < int(count):
        if time.time() - max(each.stat().st_mtime for each in there) > 60:
            break
        time.sleep(0.1)
    with (Path(folder) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def report(
    system: str,
    *,
    seconds: float,
    steps: int,
    sequences: int,
    losses: Sequence[float],
    packages: Sequence[str],
    **more: Any,
) -> None:
    """Print one JSON line.

    Args:
      system: name of the system.
      seconds: time of `steps` steps, after the warm-up.
      steps: number of timed steps.
      sequences: number of user histories in these steps.
      losses: losses of all steps, including the warm-up.
      packages: packages whose versions are reported.
      more: further fields.
    """
    line = {
        "system": system,
        "sequences_per_s": round(sequences / seconds, 1),
        "step_ms": round(1000 * seconds / steps, 1),
        "sequences_per_step": round(sequences / steps, 1),
        "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "tuned_malloc": os.environ.get("TUNED_MALLOC") == "1",
        "loss_first": round(float(losses[0]), 3),
        "loss_last": round(float(np.mean(losses[-3:])), 3),
        "steps": steps,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in packages},
        **more,
    }
    print(json.dumps(line), flush=True)
