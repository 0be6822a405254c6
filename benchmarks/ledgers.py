"""One ledger of all tests: every evaluation on a test split that the runs of a folder recorded.

    python benchmarks/ledgers.py runs results/ledger.jsonl

Merges the lines of all `ledger.jsonl` below the folder into the file, sorted by time. Lines that
occur several times, because a run was copied, are kept once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro


def main(
    runs: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="LEDGER")],
) -> None:
    """Merge.

    Args:
      runs: Folder with workdirs, at any depth.
      output: The file to add to; made if it is not there.
    """
    files = [*([output] if output.exists() else []), *sorted(runs.rglob("ledger.jsonl"))]
    lines = [
        json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()
    ]
    once = {_identity(line): line for line in lines}
    ordered = sorted(once.values(), key=lambda line: str(line["time"]))
    text = "".join(json.dumps(line) + "\n" for line in ordered)
    output.write_text(text, encoding="utf-8")
    print(f"{output}: {len(ordered)} tests")


def _identity(line: dict[str, Any]) -> str:
    return json.dumps([line["time"], line.get("parameters_sha256"), line["sets"]], sort_keys=True)


if __name__ == "__main__":
    tyro.cli(main)
