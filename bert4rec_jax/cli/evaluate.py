"""`bert4rec evaluate`: a run and the baselines on the test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro


def evaluate(
    workdir: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="WORKDIR")],
    *,
    output: Path | None = None,
    bundles: tuple[Path, ...] | None = None,
) -> None:
    """Evaluate the best checkpoint of a training run and the baselines on the test split.

    Settings are those with which the training command last came to its end, such as
    --evaluation.no-baselines. For others, run the training command again with other options.
    `bert4rec report` shows a test that training has already made, without another one.

    Args:
        workdir: The folder of the run; it may be unfinished.
        bundles: Also evaluate these exports of the run, with the loss against it; those of a final
            fit are refused.
        output: Another JSON file for the metrics. The test is always recorded in WORKDIR: a line in
            ledger.jsonl, ranks.npz and, if the run has ended with this model, metrics.json.
    """
    from bert4rec_jax.errors import UserError
    from bert4rec_jax.experiment import protocol
    from bert4rec_jax.outputs import require_folder_of, write_json
    from bert4rec_jax.processes import start_processes
    from bert4rec_jax.serving.evaluation import exported

    if bundles == ():
        raise UserError("--bundles names no bundle; give the folders of exports, or leave it out")
    if output:
        require_folder_of(output)
    start_processes()  # before bundles are opened, which starts JAX
    results = protocol.evaluate(workdir, exported=exported(bundles or ()))
    if output:
        write_json(output, results)
