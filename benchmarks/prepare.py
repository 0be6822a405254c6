"""Time and peak memory of `bert4rec prepare` on a synthetic log.

    python benchmarks/prepare.py --rows 20000000 --format movielens-dat

Writes the log into a temporary folder (25 bytes a row), prepares it in a process of its own, and
prints one JSON line. Users appear in random order, which is the hardest case for the reader.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import tyro

_NAMES = {"movielens-dat": "ratings.dat", "csv": "log.csv", "parquet": "log.parquet"}
_CHUNK_ROWS = 1_000_000
_CHILD = """
import json, resource, sys, time
from bert4rec_jax.cli import main
start = time.perf_counter()
main()
seconds = round(time.perf_counter() - start, 1)
peak = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
print(json.dumps({"seconds": seconds, "peak_gb": peak}))
"""


def main(
    rows: int = 20_000_000,
    users: int = 140_000,
    items: int = 27_000,
    format: Literal["movielens-dat", "csv", "parquet"] = "movielens-dat",
) -> None:
    """Prepare a synthetic log.

    Args:
        rows: Interactions in the log.
        users: Users they are drawn from, uniformly.
        items: Items they are drawn from, with popularity falling as 1/rank.
        format: How the log is written.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / _NAMES[format]
        _write(log, rows, users, items)
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, "prepare", str(log), "--output", f"{folder}/store"],
            capture_output=True,
            text=True,
        )
    if child.returncode:
        sys.exit(child.stderr)
    print(json.dumps({"rows": rows, "format": format, **json.loads(child.stdout.splitlines()[-1])}))


def _write(log: Path, rows: int, users: int, items: int) -> None:
    random = np.random.default_rng(0)
    schema = pa.schema(
        {
            "user_id": pa.int64(),
            "item_id": pa.int64(),
            "rating": pa.float64(),
            "timestamp": pa.int64(),
        }
    )
    if log.suffix == ".dat":
        options = pa_csv.WriteOptions(include_header=False, quoting_style="none")
        schema = pa.schema({"line": pa.string()})
    else:
        options = pa_csv.WriteOptions()
    writer = (
        pq.ParquetWriter(log, schema)
        if log.suffix == ".parquet"
        else pa_csv.CSVWriter(log, schema, write_options=options)
    )
    with writer:
        for start in range(0, rows, _CHUNK_ROWS):
            count = min(_CHUNK_ROWS, rows - start)
            columns = {
                "user_id": random.integers(1, users + 1, count),
                "item_id": np.exp(random.random(count) * np.log(items)).astype(np.int64),
                "rating": random.integers(1, 11, count) / 2,
                "timestamp": random.integers(789_652_009, 1_427_784_002, count),
            }
            table = pa.table(columns)
            if log.suffix == ".dat":
                texts = [column.cast(pa.string()) for column in table.columns]
                table = pa.table({"line": pc.binary_join_element_wise(*texts, "::")})
            writer.write_table(table)


if __name__ == "__main__":
    tyro.cli(main)
