"""Picture: an explanation as one SVG, with the influence of each item and attention to it."""

from __future__ import annotations

from bert4rec_jax.figures import COLOURS, FAINT, INK, shade, shortened, svg, text
from bert4rec_jax.serving.explanation import Explanation

_NAMES, _BARS, _CELL, _ROW, _TOP = 260, 200, 44, 26, 96


def picture(explanation: Explanation) -> str:
    """Draw an explanation as SVG text.

    Rows are the items that were read, oldest first. Columns are the influence, then one per
    attention head; the number in a cell is that head's attention in per cent.
    """
    read = [influence for influence in explanation.influences if influence.read]
    layers, heads, columns = explanation.attention.shape
    names = [influence.title for influence in read] + ["(the place itself)"] * (columns - len(read))
    middle = _NAMES + _BARS / 2
    largest = max(abs(influence.log_probability) for influence in read) or 1.0
    scale = (_BARS / 2 - 46) / largest
    first = _NAMES + _BARS + 10
    width = max(first + _CELL * layers * heads + 10, 640)
    title = (
        f"Why {explanation.title}: {explanation.place}, probability {explanation.probability:.2%}"
    )
    parts = [
        text(10, 24, shortened(title, width - 20), size=15),
        text(10, _TOP - 10, "item, oldest first"),
        text(middle, _TOP - 28, "influence: log-probability", anchor="middle"),
        text(middle, _TOP - 10, "with it, less without it", anchor="middle"),
    ]
    for layer in range(layers):
        for head in range(heads):
            x = first + (layer * heads + head + 0.5) * _CELL
            parts += [
                text(x - 20, _TOP - 28, f"layer {layer + 1}" if head == 0 else ""),
                text(x, _TOP - 10, f"head {head + 1}", anchor="middle", size=12),
            ]
    if layers:
        parts.append(text(first, _TOP - 46, "attention of each head, %"))
    for row, name in enumerate(names):
        y = _TOP + row * _ROW
        parts.append(text(_NAMES - 10, y + 17, shortened(name, _NAMES - 20), anchor="end"))
        if row < len(read):
            value = read[row].log_probability
            edge = middle + value * scale
            left, right = sorted((middle, edge))
            parts.append(
                f'<rect x="{left:.1f}" y="{y + 4}" width="{right - left:.1f}" '
                f'height="{_ROW - 8}" fill="{COLOURS[0] if value >= 0 else COLOURS[1]}"/>'
            )
            parts.append(
                text(
                    edge + (4 if value >= 0 else -4),
                    y + 17,
                    f"{round(value, 2) + 0.0:+.2f}",  # no -0.00
                    anchor="start" if value >= 0 else "end",
                    size=12,
                )
            )
        for column, weight in enumerate(explanation.attention[:, :, row].ravel()):
            x = first + column * _CELL
            background, ink = shade(float(weight))
            parts += [
                f'<rect x="{x + 1}" y="{y + 1}" width="{_CELL - 2}" height="{_ROW - 2}" '
                f'fill="{background}" stroke="{FAINT}"/>',
                text(x + _CELL / 2, y + 17, f"{weight:.0%}"[:-1], anchor="middle", colour=ink),
            ]
    height = _TOP + len(names) * _ROW + 10
    parts.append(f'<path d="M{middle} {_TOP}V{height - 10}" stroke="{INK}"/>')
    return svg(width, height, title, parts) + "\n"
