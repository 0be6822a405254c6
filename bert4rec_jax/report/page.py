"""Page: builds one self-contained HTML file. Text is escaped, except `Html`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from bert4rec_jax.figures import shade

_STYLE = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; color: #222; background: #fff;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
a { color: #14538a; } a:focus-visible, .wide:focus-visible { outline: 3px solid #14538a; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .4rem 1rem; }
nav a { display: inline-block; padding: .2rem 0; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ccc; text-align: left;
  vertical-align: top; }
td.number, th.number { text-align: right; } td.number { white-space: nowrap; }
thead th { border-bottom: 2px solid #555; }
tbody th { min-width: 6rem; }
svg { width: 100%; min-width: 34rem; height: auto; display: block; }
small { color: #555; white-space: nowrap; }
"""
# Nothing is fetched and no script runs, whatever a title contains.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


class Html(str):
    """Text that is HTML already and is not escaped."""

    __slots__ = ()


class Measured(Html):
    """A value with its interval; it aligns right."""

    __slots__ = ()


@dataclass(frozen=True)
class Shaded:
    """A share in [0, 1], shown as a table cell whose shade depends on it."""

    share: float


@dataclass(frozen=True)
class Section:
    """A heading and the content below it."""

    title: str
    parts: tuple[Html, ...]


def page(title: str, sections: Sequence[Section]) -> str:
    """The HTML of the whole file, with links to its sections."""
    names = [f"part-{number}" for number in range(1, len(sections) + 1)]
    links = "".join(
        f'<li><a href="#{name}">{escape(section.title)}</a></li>'
        for name, section in zip(names, sections)
    )
    bodies = "".join(
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(section.title)}</h2>\n'
        + "\n".join(section.parts)
        + "</section>\n"
        for name, section in zip(names, sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f'<body><header><h1>{escape(title)}</h1><nav aria-label="Sections"><ul>{links}</ul></nav>'
        f"</header><main>\n{bodies}</main></body></html>\n"
    )


def paragraph(*parts: str) -> Html:
    """A paragraph; the parts that are `Html` stay as they are."""
    return Html(f"<p>{''.join(map(_inner, parts))}</p>")


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table whose first column names the rows. It scrolls horizontally where it is too wide.

    Args:
      caption: what the table shows.
      header: names of the columns.
      rows: cells; numbers and `Shaded` align right, `Html` stays as it is.
    """
    rows = [tuple(row) for row in rows]
    right = {
        column
        for row in rows
        for column, cell in enumerate(row)
        if isinstance(cell, int | float | Shaded | Measured)
    }
    kind = [' class="number"' if column in right else "" for column in range(len(header))]
    head = "".join(f'<th scope="col"{k}>{escape(name)}</th>' for name, k in zip(header, kind))
    body = "".join(
        f'<tr><th scope="row"{kind[0]}>{_inner(row[0])}</th>'
        + "".join(_cell(cell, k) for cell, k in zip(row[1:], kind[1:]))
        + "</tr>\n"
        for row in rows
    )
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(title: str, drawn: str) -> Html:
    """A picture from `figures`, in a box that scrolls where it would be too small to read."""
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(title)}">{drawn}</div>'
    )


def measured(value: float, low: float, high: float, *, signed: bool = False) -> Measured:
    """A value, with its interval below it."""
    sign = "+" if signed else ""
    return Measured(
        f"<span>{value:{sign}.4f}<br><small>{low:{sign}.4f} to {high:{sign}.4f}</small></span>"
    )


def lines(texts: Iterable[str]) -> Html:
    """The texts, one per line."""
    return Html("<br>".join(map(escape, texts)))


def _cell(cell: object, kind: str) -> str:
    if isinstance(cell, Shaded):
        background, ink = shade(cell.share)
        style = f"background:{background};color:{ink}"
        return f'<td{kind} style="{style}">{cell.share:.1%}</td>'
    return f"<td{kind}>{_inner(cell)}</td>"


def _inner(cell: object) -> str:
    if isinstance(cell, Html):
        return cell
    if isinstance(cell, float):
        return f"{cell:.4f}"
    if isinstance(cell, int):
        return f"{cell:,}"
    return escape(str(cell))
