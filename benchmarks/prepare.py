"""Time and peak memory of `bert4rec prepare` on synthetic logs of several sizes.

    python benchmarks/prepare.py --interactions 1000000 10000000 30000000 100000000

Writes each log as Parquet shards into a temporary folder (`benchmarks/synthetic.py`), prepares it
in a process of its own, and prints one JSON line per size. With three sizes or more, another line
extrapolates to a billion (10^9) interactions, by a straight line through all sizes but the
smallest, which does not fill the budget of rows. `peak_rss_gb` is the peak resident memory of the
process, including code and libraries.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
import tyro

from bert4rec_jax.data.options import ROWS_IN_MEMORY
from bert4rec_jax.data.store import SequenceStore

_FAR = 1_000_000_000
_CHILD = """
import json, resource, sys, time
from bert4rec_jax.cli import main
start = time.perf_counter()
main()
seconds = round(time.perf_counter() - start, 2)
peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
print(json.dumps({"seconds": seconds, "peak_rss_gb": peak}))
"""


def main(
    interactions: tuple[int, ...] = (1_000_000, 10_000_000, 30_000_000, 100_000_000),
    rows_in_memory: int = ROWS_IN_MEMORY,
    spread: int = synthetic.SPREAD,
    folder: Path | None = None,
) -> None:
    """Prepare synthetic logs.

    Args:
        interactions: Rows of each log.
        rows_in_memory: As of `bert4rec prepare`.
        spread: As of `benchmarks/synthetic.py`.
        folder: Where the temporary folder is made. None: where the system has it.
    """
    lines = [_measure(count, rows_in_memory, spread, folder) for count in interactions]
    if len(lines) > 2:
        print(json.dumps(_extrapolated(lines)), flush=True)


def _measure(count: int, rows_in_memory: int, spread: int, folder: Path | None) -> dict[str, Any]:
    made = Path(tempfile.mkdtemp(dir=folder))
    try:
        synthetic.write(made / "log", count, spread=spread)
        size = sum(file.stat().st_size for file in (made / "log").iterdir())
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, "prepare", str(made / "log"),
             "--output", str(made / "store"), "--rows-in-memory", str(rows_in_memory)],
            capture_output=True,
            text=True,
        )  # fmt: skip
        if child.returncode:
            sys.exit(child.stderr)
        store = SequenceStore.open(made / "store")
        measured = json.loads(child.stdout.splitlines()[-1])
        line = {
            "n": count,
            **measured,
            "rows_per_s": round(count / measured["seconds"]),
            "rows_in_memory": rows_in_memory,
            "spread": spread,
            "log_gb": round(size / 2**30, 2),
            "users": store.num_users,
            "items": len(store.catalog),
            "kept": store.num_interactions,
        }
    finally:
        shutil.rmtree(made)
    print(json.dumps(line), flush=True)
    return line


def _extrapolated(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Extrapolate by straight lines through all sizes but the smallest."""
    far = sorted(lines, key=lambda line: line["n"])[1:]
    count = [line["n"] / _FAR for line in far]
    result: dict[str, Any] = {"n": _FAR}
    for name in ("seconds", "peak_rss_gb"):
        slope, base = np.polyfit(count, [line[name] for line in far], 1)
        result |= {name: round(base + slope, 2), f"{name}_per_1e9": round(slope, 2)}
    return {**result, "extrapolated_from": [line["n"] for line in far]}


if __name__ == "__main__":
    tyro.cli(main)
