"""Figures: charts of lines and bars as SVG, and shades for tables. All text is escaped.

Colours have a contrast of at least 4.5 on white, and no figure conveys anything by colour alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

COLOURS = ("#1b6ca8", "#b83a28", "#1f7a38", "#7a4fbf")
INK, FAINT = "#222", "#ddd"
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 720, 360, 60, 34, 150, 50
_ROW = 24
_NOT_IN_XML = re.compile("[^\\t\\n\\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A named value, with an optional interval around it and a note."""

    name: str
    value: float
    interval: tuple[float, float] | None = None
    note: str = ""


def svg(width: float, height: float, title: str, parts: Iterable[str]) -> str:
    """A complete SVG image that fits the width of its container; `title` is for screen readers."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
            f'role="img" aria-label="{_escaped(title)}" font-family="sans-serif" font-size="13" '
            f'style="max-width:{width:g}px">',
            '<rect width="100%" height="100%" fill="white"/>',
            *parts,
            "</svg>",
        ]
    )


def text(
    x: float, y: float, value: str, *, anchor: str = "start", size: int = 13, colour: str = INK
) -> str:
    """A line of text; `y` is its baseline."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{colour}">{_escaped(value)}</text>'
    )


def line_chart(
    title: str,
    curves: Mapping[str, Points],
    *,
    levels: Mapping[str, float] | None = None,
    over: str = "step",
    from_zero: bool = True,
) -> str:
    """Curves over a common x axis, each labelled at its end.

    Args:
      title: shown above the chart.
      curves: name -> points (x, y), at least one; colours repeat from the fifth on.
      levels: name -> y of a horizontal line.
      over: label of the x axis.
      from_zero: start the y axis at 0, not at the lowest value.
    """
    levels = levels or {}
    points = [point for curve in curves.values() for point in curve]
    last = max(x for x, _ in points) or 1.0
    values = [*(y for _, y in points), *levels.values()]
    low = 0.0 if from_zero else min(values)
    high = max(values) * 1.05 if from_zero else max(values)
    span = high - low or 1.0

    def across(x: float) -> float:
        return _LEFT + x / last * (_WIDTH - _LEFT - _RIGHT)

    def up(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - low) / span * (_HEIGHT - _TOP - _BOTTOM)

    parts = [text(_LEFT, 20, title, size=15)]
    for tick in range(6):
        y = low + span * tick / 5
        parts += [
            f'<path d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}" stroke="{FAINT}"/>',
            text(_LEFT - 8, up(y) + 4, _number(y, span), anchor="end"),
        ]
    for x in sorted({round(last * tick / 5) for tick in range(6)}):
        parts.append(text(across(x), _HEIGHT - 28, f"{x:,}", anchor="middle"))
    parts.append(text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, over, anchor="middle"))
    for name, y in levels.items():
        parts += [
            f'<path d="M{_LEFT} {up(y):.1f}H{_WIDTH - _RIGHT}" stroke="#555" '
            'stroke-dasharray="5 4"/>',
            text(_WIDTH - _RIGHT + 6, up(y) + 4, name),
        ]
    for (name, curve), colour in zip(curves.items(), cycle(COLOURS)):
        line = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in curve)
        end, y = curve[-1]
        parts += [
            f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
            f'<circle cx="{across(end):.1f}" cy="{up(y):.1f}" r="3" fill="{colour}"/>',
            text(across(end) + 7, up(y) + 4, name, colour=colour),
        ]
    return svg(_WIDTH, _HEIGHT, title, parts)


def bar_chart(title: str, bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0, one below the other, with values, intervals and notes beside them."""
    names = 8 * max(len(bar.name) for bar in bars)
    left = min(max(names, 60), 240)
    ends = [max(bar.value, bar.interval[1] if bar.interval else 0.0) for bar in bars]
    scale = (_WIDTH - left - 190) / (max(ends) or 1.0)
    parts = [text(10, 20, title, size=15)]
    for number, (bar, end) in enumerate(zip(bars, ends)):
        y = _TOP + number * _ROW
        shown = f"{bar.value:.3f}{f'  {bar.note}' if bar.note else ''}"
        parts += [
            text(left - 8, y + 15, shortened(bar.name, left - 8), anchor="end"),
            f'<rect x="{left}" y="{y + 3}" width="{max(bar.value, 0) * scale:.1f}" '
            f'height="{_ROW - 8}" fill="{COLOURS[0]}"/>',
            text(left + end * scale + 8, y + 15, shown),
        ]
        if bar.interval:
            low, high = (left + edge * scale for edge in bar.interval)
            parts.append(
                f'<path d="M{low:.1f} {y + 11}H{high:.1f}M{low:.1f} {y + 7}v8'
                f'M{high:.1f} {y + 7}v8" stroke="{INK}" stroke-width="1.5" fill="none"/>'
            )
    return svg(_WIDTH, _TOP + _ROW * len(bars) + 8, title, parts)


def shortened(name: str, width: float) -> str:
    """A name cut to about `width` SVG units at the default font size."""
    most = int(width / 6.6)
    return name if len(name) <= most else f"{name[: most - 1]}…"


def shade(share: float) -> tuple[str, str]:
    """A background colour for a share in [0, 1], and a readable text colour on it."""
    share = min(max(share, 0.0), 1.0)
    red, green, blue = (round(255 + (dark - 255) * share) for dark in (14, 74, 122))
    return f"rgb({red},{green},{blue})", "#fff" if share > 0.72 else "#000"


def _escaped(value: str) -> str:
    """Text for XML, which has no signs for control characters, not even escaped ones."""
    return escape(_NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", value))


def _number(value: float, span: float) -> str:
    return f"{value:.{3 if span < 1 else 2 if span < 20 else 0}f}"
