"""`bert4rec export`: a run to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.markup import escape


def export(
    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    dtype: Literal["float32", "bfloat16", "int8"] = "float32",
) -> None:
    """Export the model of a training run as a bundle for ranking and recommending.

    It is that of the final fit, if the run has one, and the best checkpoint otherwise.

    Args:
        run: The folder of the run (train.py's --workdir); it may be unfinished.
        bundle: The folder to make; an earlier bundle there is replaced.
        dtype: Type of the weights. bfloat16 halves their size; int8 (with a scale per item and
            output) quarters it. Co-visitation counts stay as they are, 512 bytes per item, or
            1,024 with relatives. `bert4rec evaluate RUN --bundles BUNDLE` measures what that
            costs, before a final fit.
    """
    from bert4rec_jax.serving.export import export

    manifest = export(run, bundle, dtype=dtype, console=Console(stderr=True))
    Console().print(
        f"{escape(str(bundle))}: step {manifest['step']:,}, {manifest['known_items']:,} items, "
        f"{dtype}, for {', '.join(manifest['functions']['encode']['platforms'])}; later versions "
        f"of JAX can read it until {manifest['readable_until']}",
        highlight=False,
        soft_wrap=True,
    )
