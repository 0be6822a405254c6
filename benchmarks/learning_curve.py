"""A picture of validation metrics over training, from the logs of runs.

    python benchmarks/learning_curve.py docs/ml_1m.svg runs/ml_1m --level ".300 published=0.300"

Writes one SVG; no library is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 360, 60, 30, 150, 50
_COLOURS = ("#1b6ca8", "#c44536", "#2a9d4a", "#8a4fbf")


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
    curves = {run.name: _curve(run, metric) for run in runs}
    levels = {name: float(value) for name, value in (text.split("=") for text in level)}
    steps = max(step for curve in curves.values() for step, _ in curve)
    values = [v for curve in curves.values() for _, v in curve]
    top = max([*values, *levels.values()]) * 1.05

    def x(step: float) -> float:
        return _LEFT + step / steps * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_LEFT}" y="18" font-size="15">validation {metric.upper()} by step</text>',
    ]
    for tick in range(6):
        value, step = top * tick / 5, steps * tick / 5
        parts += [
            f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>',
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.3f}</text>',
            f'<text x="{x(step):.1f}" y="{_HEIGHT - 28}" text-anchor="middle">{step:,.0f}</text>',
        ]
    for name, value in levels.items():
        parts += [
            f'<path d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}" stroke="#555" '
            'stroke-dasharray="5 4"/>',
            f'<text x="{_WIDTH - _RIGHT + 6}" y="{y(value) + 4:.1f}">{name}</text>',
        ]
    for (name, curve), colour in zip(curves.items(), _COLOURS):
        points = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in curve)
        step, value = curve[-1]
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
            f'<text x="{x(step) + 6:.1f}" y="{y(value) + 4:.1f}" fill="{colour}">{name}</text>',
        ]
    output.write_text("\n".join([*parts, "</svg>"]) + "\n", encoding="utf-8")


def _curve(run: Path, metric: str) -> list[tuple[int, float]]:
    lines = map(json.loads, (run / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [(line["step"], line["validation"][metric]) for line in lines if "validation" in line]


if __name__ == "__main__":
    tyro.cli(main)
