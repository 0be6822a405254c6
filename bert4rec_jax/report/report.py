"""Report: writes the evidence of a run, in sections, to one HTML file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from bert4rec_jax.outputs import whole_file
from bert4rec_jax.report import sections
from bert4rec_jax.report.evidence import gather
from bert4rec_jax.report.page import page


def write_report(run: Path, output: Path, console: Console) -> None:
    """Write what a run learned as one HTML file that needs no network.

    Args:
      run: the workdir of a run, finished or not.
      output: the file; an earlier one is replaced.
      console: shows a message if the test split was not read yet.

    Raises:
      UserError: see `evidence.gather`; or the file cannot be written.
    """
    evidence = gather(run, console)
    shown = [
        section(evidence)
        for section in (
            sections.about,
            sections.quality,
            sections.curves,
            sections.groups,
            sections.breadth,
            sections.heads,
            sections.neighbours,
            sections.misses,
        )
    ]
    with whole_file(output) as file:
        file.write(page(f"What {run.resolve().name} learned", shown).encode())
