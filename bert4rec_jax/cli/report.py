"""`bert4rec report`: what a run learned, as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


def report(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    *,
    output: Path | None = None,
) -> None:
    """Write a report about a run as one HTML file that needs no network.

    Args:
        run: The folder of the run; it may be unfinished.
        output: The file to write. None: report.html in the folder of the run.
    """
    from bert4rec_jax.outputs import require_folder_of
    from bert4rec_jax.report.report import write_report

    if output:
        require_folder_of(output)
    path = output or run / "report.html"
    write_report(run, path, Console(stderr=True))
    Console().print(f"Written: {path}", highlight=False, soft_wrap=True, markup=False)
