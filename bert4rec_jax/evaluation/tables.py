"""Tables for the console: results with baselines, compared runs, and recommended titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.markup import escape
from rich.table import Table

from bert4rec_jax.data.catalog import PAD, Catalog
from bert4rec_jax.data.split import Cases
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.assessment import Assessment
from bert4rec_jax.evaluation.bootstrap import Interval
from bert4rec_jax.evaluation.evaluator import Ranking
from bert4rec_jax.evaluation.run_comparison import ComparedSet, Figure
from bert4rec_jax.evaluation.sampled import NEGATIVES, SEEDS
from bert4rec_jax.evaluation.seeds import labels

_COLUMNS = ("hr@10", "ndcg@10", "hr@50", "mrr")
_DRAWN = {"users": "users", "items": "target items"}


def results_table(title: str, assessments: Sequence[Assessment]) -> Table:
    """Metrics with 95 % intervals below, and the first model's paired leads; fits 80 columns."""
    table = Table(
        title=title,
        caption=f"below each value: 95 % bootstrap interval over {_DRAWN[assessments[0].drawn]}",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("model", width=16, overflow="fold")
    for name in _COLUMNS:
        table.add_column(name.upper(), justify="right", no_wrap=True)
    table.add_column("first leads\nNDCG@10 by", justify="right", no_wrap=True)
    for number, model in enumerate(assessments):
        values = [
            f"{interval.mean:.4f}\n[dim]{_short(interval.low)}-{_short(interval.high)}[/]"
            for interval in (model.intervals[name] for name in _COLUMNS)
        ]
        lead = model.lead.get("ndcg@10")
        compared = _lead(lead) if lead else ""
        style = "bold" if number == 0 else ""
        table.add_row(escape(model.name), *values, compared, style=style)
    return table


def sampled_table(name: str, variant: str, models: Mapping[str, Mapping[str, Any]]) -> Table:
    """Metrics against sampled negatives, the means of all draws."""
    table = Table(
        title=f"{name.replace('_', ' ')}, against {NEGATIVES} sampled items "
        f"({variant.replace('_', ' ')})",
        caption=f"mean of {len(SEEDS)} draws; only to compare with figures of this protocol",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", overflow="fold")
    for metric in _COLUMNS:
        table.add_column(metric.upper(), justify="right")
    for model, metrics in models.items():
        table.add_row(escape(model), *(f"{metrics[metric]:.4f}" for metric in _COLUMNS))
    return table


def comparison_table(name: str, compared: ComparedSet, metrics: Sequence[str]) -> Table:
    """Metrics of models of several runs with 95 % intervals below, and the first row's leads."""
    cases, users = compared.cases, compared.users
    sizes = f"{users:,} users" if users == cases else f"{cases:,} cases of {users:,} users"
    over = _DRAWN[compared.drawn]
    groups = list(dict.fromkeys(row.runs for row in compared.rows))
    legend = [f"run {number}: {escape(name)}" for number, name in enumerate(labels(groups), 1)]
    if any(len(row.runs) > 1 for row in compared.rows):
        legend.append("±: standard deviation over seeds")
    table = Table(
        title=f"{name.replace('_', ' ')}: {sizes}",
        caption="\n".join([f"below each value: 95 % bootstrap interval over {over}", *legend]),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("model", overflow="fold", min_width=10)
    for metric in metrics:
        table.add_column(metric.upper(), justify="right", no_wrap=True)
        table.add_column(f"first leads\n{metric.upper()} by", justify="right", no_wrap=True)
    for number, row in enumerate(compared.rows):
        cells = [cell for metric in metrics for cell in _compared(row.figures[metric])]
        title = f"{escape(row.model)}\n[dim]run {1 + groups.index(row.runs)}[/]"
        table.add_row(title, *cells, style="bold" if number == 0 else "")
    return table


def _compared(figure: Figure) -> tuple[str, str]:
    """Table cells for a value and the first row's lead, each with its interval below."""
    spread = "" if figure.deviation is None else f" ±{_short(figure.deviation, 4)}"
    own, lead = figure.own, figure.lead
    value = f"{own.mean:.4f}{spread}\n[dim]{_short(own.low)}-{_short(own.high)}[/]"
    return value, _lead(lead, figure.lead_deviation) if lead else ""


def _lead(lead: Interval, deviation: float | None = None) -> str:
    spread = "" if deviation is None else f" ±{_short(deviation, 4)}"
    return f"{lead.mean:+.4f}{spread}\n[dim]{_short(lead.low)} to {_short(lead.high)}[/]"


def _short(share: float, places: int = 3) -> str:
    """Format with `places` decimals, without the zero before the decimal point; 1 is just "1"."""
    text = f"{share:.{places}f}"
    return "1" if float(text) == 1 else text.replace("0.", ".", 1)


_USERS, _TITLES = 3, 5  # rows, and items in a cell, of the table of recommendations
_LETTERS = 60  # of a title there: those of products may be as long as descriptions


def recommendations_table(
    cases: Cases,
    ranking: Ranking,
    store: SequenceStore,
    catalog: Catalog,
) -> Table:
    """The last items of three users, what the model recommends, and what they chose next.

    The users are spaced evenly among those with at least five items. The choice does not
    depend on how well the model did. Long titles are cut.
    """
    table = Table(title="What some users chose, and what the model would have shown them")
    for name in ("user", f"last {_TITLES} items", f"top {_TITLES} recommended", "chosen next"):
        table.add_column(name, overflow="fold")
    lengths = cases.rows - store.offsets[cases.users]
    long_enough = np.flatnonzero(lengths >= _TITLES)
    if not len(long_enough):
        long_enough = np.arange(len(cases))
    spread = np.linspace(0, len(long_enough) - 1, _USERS + 2).astype(int)[1:-1]
    picks = long_enough[np.unique(spread)]
    ids = store.user_ids()
    for pick in picks:
        row = int(cases.rows[pick])
        start = max(row - _TITLES, int(store.offsets[cases.users[pick]]))
        target = int(store.tokens[row])
        rank = int(ranking.ranks[pick])
        table.add_row(
            escape(ids[cases.users[pick]]),
            "\n".join(_title(catalog, token) for token in store.tokens[start:row]),
            "\n".join(
                f"[green]{_title(catalog, token)}[/]" if token == target else _title(catalog, token)
                for token in ranking.top[pick, :_TITLES]
                if token != PAD
            ),
            f"{_title(catalog, target)}\n[dim]rank {rank:,} of {len(catalog):,}[/]",
            end_section=True,
        )
    return table


def _title(catalog: Catalog, token: int | np.integer) -> str:
    """The title in one paragraph of at most `_LETTERS` characters, for a cell of a table."""
    title = " ".join(catalog.title(int(token)).split())
    return escape(title if len(title) <= _LETTERS else f"{title[: _LETTERS - 1].rstrip()}…")
