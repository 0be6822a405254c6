"""A picture of what a command prints in a terminal.

    python docs/terminal.py docs/recommend.svg -- bert4rec recommend bundles/movies "Alien (1979)"

Runs the command, shows what it prints, and writes one SVG. Nothing is written if it fails.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 120  # columns of the terminal


def main(output: Path, command: list[str]) -> int:
    """Run, show, draw; returns the command's exit status."""
    plain = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(WIDTH)}
    done = subprocess.run(command, env={**os.environ, **plain}, stdout=subprocess.PIPE, text=True)
    console = Console(record=True, width=WIDTH)
    console.print(Text.from_ansi(done.stdout.rstrip("\n")))
    if done.returncode == 0:
        drawn = console.export_svg(title=shlex.join(command))
        drawn = re.sub(r"@font-face {.*?}", "", drawn, flags=re.DOTALL)  # would be downloaded
        lines = (line.rstrip() for line in drawn.splitlines())
        output.write_text("\n".join(line for line in lines if line) + "\n", encoding="utf-8")
    return done.returncode


if __name__ == "__main__":
    if "--" not in sys.argv[2:3] or not sys.argv[3:]:
        sys.exit(__doc__)
    sys.exit(main(Path(sys.argv[1]), sys.argv[3:]))
