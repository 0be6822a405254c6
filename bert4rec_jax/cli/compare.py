"""`bert4rec compare`: models of several runs on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape


def compare(
    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")],
    *,
    metric: tuple[str, ...] = ("hr@10", "ndcg@10"),
    model: tuple[str, ...] = (),
    validation: bool = False,
    output: Path | None = None,
) -> None:
    """Compare runs and seeds: metrics with intervals, and paired differences from the first.

    Runs that differ in their seed alone are shown as one, with the standard deviation over seeds.

    Args:
        runs: Folders of runs, or ranks.npz files. The first model of the first one is compared with
            all others.
        metric: Metrics to show: hr@K, ndcg@K or mrr.
        model: Models to show, by their names in results tables. Empty: all.
        validation: Compare on validation cases, to choose between runs without reading the test.
        output: JSON file for the figures.
    """
    from bert4rec_jax.evaluation.run_comparison import compare_runs
    from bert4rec_jax.evaluation.tables import comparison_table
    from bert4rec_jax.outputs import require_folder_of, write_json

    if output:
        require_folder_of(output)
    compared = compare_runs(runs, metrics=metric, models=model, validation=validation)
    console = Console()
    at_once = 2 if console.width >= 80 else 1  # more would push out the names of the models
    console.width = max(console.width, 48)
    for name, found in compared.items():
        for first in range(0, len(metric), at_once):
            console.print(comparison_table(name, found, metric[first : first + at_once]))
        for note in found.notes:
            console.print(f"[yellow]{escape(note)}", highlight=False, soft_wrap=True)
    if output:
        write_json(output, {name: found.to_json() for name, found in compared.items()})
