"""`bert4rec evaluate`: a run beside the baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def evaluate(
    workdir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="WORKDIR")],
    *,
    output: Path | None = None,
    bundles: tuple[Path, ...] = (),
) -> None:
    """Test the best checkpoint of a training run, beside the baselines.

    Args:
        workdir: The folder of the run; it may be unfinished.
        bundles: Also test these exports of the run, with what they lose.
        output: File for the metrics, as JSON. None: only the tables are shown.
    """
    from bert4rec_jax import experiment
    from bert4rec_jax.outputs import write_json
    from bert4rec_jax.serving.evaluation import exported

    results = experiment.evaluate(workdir, exported=exported(bundles))
    if output:
        write_json(output, results)
