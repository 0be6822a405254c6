"""Training throughput on a GPU, compared with PyTorch, on real histories.

    python benchmarks/gpu_training.py data/ml-1m --peer .venv/torch-gpu/bin/python

`data/ml-1m` is made by `bert4rec prepare`; the peer's interpreter needs a CUDA build of torch, and
transformers. All systems compile at the same time, each in its own process; then they are timed one
after the other. Prints one JSON line per system and size.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import tyro
from train_throughput import write_histories

_PEERS = Path(__file__).parent / "peers"
_TORCH = {
    "hugging_face": ("default", "reduce-overhead"),
    "plain": ("reduce-overhead",),
    "flash": ("reduce-overhead",),
}
_SIZES = {
    "small": "--width 64 --layers 2 --heads 2 --ffn 256 --steps 400",
    "large": "--width 512 --layers 8 --heads 8 --ffn 2048 --attention-dropout 0 --steps 64",
}


def main(
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")],
    peer: str = sys.executable,
    batch: int = 128,
    trace: Path | None = None,
) -> None:
    """Compare.

    Args:
        data: A folder made by `bert4rec prepare`.
        peer: The interpreter that PyTorch runs in.
        batch: Histories per step.
        trace: A folder for profiles of this package's steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        histories = Path(folder) / "histories.npz"
        write_histories(histories, data)
        for size, options in _SIZES.items():
            shared = [
                str(histories), "--bfloat16", "--warmup", "32", "--batch", str(batch),
                *options.split(),
            ]  # fmt: skip
            ours = [sys.executable, str(_PEERS / "throughput_ours.py"), *shared]
            commands = [[*ours, "--trace", str(trace / size)] if trace else ours]
            for system, modes in _TORCH.items():
                for mode in modes:
                    commands.append(
                        [peer, str(_PEERS / "throughput_torch.py"), *shared, "--system", system,
                         "--compile", mode]
                    )  # fmt: skip
            turns = Path(folder) / size
            turns.mkdir()
            environment = {
                **os.environ,
                "TURNS": f"{turns}:{len(commands)}",
                "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            }
            started = [
                subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
                for command in commands
            ]
            for process in started:
                out, _ = process.communicate()
                if process.returncode:
                    print(f"failed: {' '.join(process.args)}", file=sys.stderr)
                    continue
                print(json.dumps({**json.loads(out.splitlines()[-1]), "size": size}), flush=True)


if __name__ == "__main__":
    tyro.cli(main)
