"""One ledger of all tests: every evaluation on a test split that the runs of a folder recorded.

    python benchmarks/ledgers.py runs results/ledger.jsonl

Merges the lines of all `ledger.jsonl` below the folder into the file, sorted by time. Lines that
occur several times, because a run was copied, are kept once. Those that were cut off are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
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
    once = {_identity(line): line for file in files for line in _lines(file)}
    ordered = sorted(once.values(), key=lambda line: str(line["time"]))
    text = "".join(json.dumps(line) + "\n" for line in ordered)
    output.write_text(text, encoding="utf-8")
    print(f"{output}: {len(ordered)} tests")


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            yield json.loads(text)
        except ValueError:
            print(f"{file}, line {number}: cut off, left out")


def _identity(line: dict[str, Any]) -> str:
    return json.dumps([line["time"], line.get("parameters_sha256"), line["sets"]], sort_keys=True)


if __name__ == "__main__":
    tyro.cli(main)
