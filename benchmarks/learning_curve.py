"""Draws validation metrics over training, from the logs of runs.

    python benchmarks/learning_curve.py docs/ml_1m.svg runs/ml_1m --level ".300 published=0.300"

Writes one SVG.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from bert4rec_jax.figures import line_chart


def main(
    output: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SVG")],
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")],
    metric: str = "ndcg@10",
    level: tuple[str, ...] = (),
) -> None:
    """Draw curves.

    Args:
        output: The file to write.
        runs: Folders of training runs.
        metric: Validation metric.
        level: Horizontal lines, as NAME=VALUE.
    """
    names = [run.resolve().name for run in runs]
    if len(set(names)) < len(names):
        names = [str(run) for run in runs]
    curves = {name: _curve(run, metric) for name, run in zip(names, runs)}
    levels = {name: float(value) for name, value in (text.rsplit("=", 1) for text in level)}
    drawn = line_chart(f"validation {metric.upper()} by step", curves, levels=levels)
    output.write_text(drawn + "\n", encoding="utf-8")


def _curve(run: Path, metric: str) -> list[tuple[float, float]]:
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["validation"][metric]) for line in lines if "validation" in line]


if __name__ == "__main__":
    tyro.cli(main)
