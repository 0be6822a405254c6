"""Training throughput compared with other libraries, in interleaved runs on real histories.

    python benchmarks/train_throughput.py data/ml-1m --peer rectools=.venv-rectools/bin/python \\
        --peer recbole=.venv-recbole/bin/python --peer hugging_face=.venv-hf/bin/python \\
        --peer keras_hub=.venv-keras/bin/python

`data/ml-1m` is made by `bert4rec prepare`; benchmarks/README.md says how the environments are made.
Each round runs every system twice, with default malloc and with malloc tuned as by this package's
commands, each time in a process of its own. Prints one JSON line per run, and then the medians.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from bert4rec_jax.data.catalog import FIRST_ITEM
from bert4rec_jax.data.store import SequenceStore

_PEERS = Path(__file__).parent / "peers"
_OURS = "ours"
_LENGTH = 200


def main(
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    peer: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = (),
    rounds: int = 3,
    warmup: int = 5,
    steps: int = 20,
) -> None:
    """Compare.

    Args:
        data: A folder made by `bert4rec prepare`.
        peer: NAME=PYTHON: the interpreter of a peer's environment, NAME as in the command above.
        rounds: How often every system runs.
        warmup: Steps before the clock starts, compilation among them.
        steps: Steps that are measured.
    """
    systems = {_OURS: sys.executable, **dict(text.split("=", 1) for text in peer)}
    found: dict[tuple[str, bool], list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        histories = Path(folder) / "histories.npz"
        write_histories(histories, data)
        for _ in range(rounds):
            for tuned in (False, True):
                for name, python in systems.items():
                    line = _run(python, name, tuned, [str(histories), str(warmup), str(steps)])
                    print(json.dumps(line), flush=True)
                    found[name, tuned].append(line)
    print(json.dumps(_summary(found)))


def write_histories(path: Path, data: Path) -> None:
    """Write the last `_LENGTH` items of every user, and a link to the store beside the file."""
    store = SequenceStore.open(data)
    starts = np.maximum(store.offsets[:-1], store.offsets[1:] - _LENGTH)
    pieces = [store.tokens[a:b] for a, b in zip(starts, store.offsets[1:])]
    lengths = [len(piece) for piece in pieces]
    np.savez(
        path,
        offsets=np.cumsum([0, *lengths]),
        items=np.concatenate(pieces) - FIRST_ITEM + 1,
        num_items=len(store.catalog),
    )
    path.with_suffix(".store").symlink_to(data.resolve())


def _run(python: str, name: str, tuned: bool, arguments: list[str]) -> dict[str, Any]:
    data, warmup, steps = arguments
    script = _PEERS / f"throughput_{name}.py"
    done = subprocess.run(
        [python, *([str(_PEERS / "tuned.py")] if tuned else []), str(script), data,
         "--warmup", warmup, "--steps", steps],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-4000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def _summary(found: dict[tuple[str, bool], list[dict[str, Any]]]) -> dict[str, Any]:
    """Median sequences/s of each system, and the ratios of ours to that of the fastest peer.

    `ratio_as_shipped` compares this package with tuned malloc, as its commands tune it by
    themselves, to peers with default malloc.
    """
    median = {
        key: statistics.median(line["sequences_per_s"] for line in lines)
        for key, lines in found.items()
    }
    summary: dict[str, Any] = {
        name: {"untuned": median[name, False], "tuned": median[name, True]}
        for name, tuned in found
        if tuned
    }
    peers = [name for name in summary if name != _OURS]
    if peers:
        summary["ratio_as_shipped"] = round(
            median[_OURS, True] / max(median[name, False] for name in peers), 2
        )
        summary["ratio_all_tuned"] = round(
            median[_OURS, True] / max(median[name, True] for name in peers), 2
        )
    return {"summary": summary}


if __name__ == "__main__":
    tyro.cli(main)
