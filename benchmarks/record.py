"""Run a benchmark and keep its JSON lines, each with the command, commit, device and versions.

    python benchmarks/record.py ranking -- python benchmarks/ranking.py --dims 64

Lines are written to `results/performance/NAME.jsonl` as they come, and replace those of an earlier
run of the same command; `page.py` makes tables of them. The tree must be committed, so that the
commit says what was measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bert4rec_jax.experiment.environment import describe
from bert4rec_jax.sharding import make_mesh

_ROOT = Path(__file__).parents[1]
FOLDER = _ROOT / "results" / "performance"
_ABOUT = ("platform", "kind", "devices", "cpu", "cores", "jax", "python")


def main() -> None:
    """Run the command and keep its lines."""
    if sys.argv[2:3] != ["--"] or not sys.argv[3:]:
        sys.exit("usage: record.py NAME -- COMMAND...")
    name, command = sys.argv[1], sys.argv[3:]
    if changed := _git("status", "--porcelain", "--", "bert4rec_jax", "benchmarks"):
        sys.exit(f"commit first, so that a commit can be named:\n{changed}")
    device = describe(make_mesh())
    stamp = {
        "command": " ".join(command),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "device": {key: device[key] for key in _ABOUT},
    }
    file = FOLDER / f"{name}.jsonl"
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = [line for line in read(name) if line["command"] != stamp["command"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            print(text, end="", flush=True)
            if text.startswith("{"):
                kept.append({**json.loads(text), **stamp})
                file.write_text("".join(f"{json.dumps(line)}\n" for line in kept))
    sys.exit(process.returncode)


def read(name: str) -> list[dict[str, Any]]:
    """The recorded lines of a benchmark; none if it was not recorded."""
    file = FOLDER / f"{name}.jsonl"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    return [json.loads(line) for line in text.splitlines()]


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]  # wherever this is called
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
