"""Publish what supports the figures of a finished run: config, metrics, device, digest, ranks.

    python benchmarks/publish.py runs/movietweetings results/movietweetings/seed_0 \\
        --command "python train.py" --commit 683bff9

Writes DESTINATION.json and DESTINATION.npz, for `bert4rec compare` and for checking the figures.
The log's own values (the ids of users and of targets) are left out, because few licences allow
passing them on. The hash of the cases shows whether two files are about the same ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

_OF_THE_LOG = ("targets", "user_ids", "item_ids")  # see `evaluation.rank_file`


def main(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    destination: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DESTINATION")],
    *,
    command: str,
    commit: str,
) -> None:
    """Publish.

    Args:
        run: A workdir that was tested.
        destination: Where the two files go, without their endings.
        command: What was typed.
        commit: What it was typed at.
    """
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    config = metrics["config"]
    seed = config["training"]["seed"]
    for name in ("workdir", "init_from"):
        config[name] = _portable(config[name])
    for name in ("path", "content", "users"):
        config["data"][name] = _portable(config["data"][name])
    about = {"command": command, "commit": commit, "seed": seed}
    destination.parent.mkdir(parents=True, exist_ok=True)
    with np.load(run / "ranks.npz") as ranks:
        kept = {name: ranks[name] for name in ranks if name.split("/")[-1] not in _OF_THE_LOG}
    # Not with_suffix, which would take the end of a name such as rate_0.1 for an ending.
    np.savez_compressed(destination.with_name(f"{destination.name}.npz"), **kept)
    text = json.dumps({**about, **metrics}, indent=1)
    beside = destination.with_name(f"{destination.name}.json")
    beside.write_text(f"{text}\n", encoding="utf-8")


def _portable(path: str) -> str:
    """An absolute path made relative to the current folder, or cut to its name if outside.

    Absolute paths mean nothing on other machines.
    """
    whole = Path(path)
    if not whole.is_absolute():
        return path
    return str(whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole.name)


if __name__ == "__main__":
    tyro.cli(main)
