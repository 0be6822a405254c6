"""`bert4rec explore`: a local page to try models on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console


def explore(
    bundles: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="BUNDLE [BUNDLE ...]")
    ],
    *,
    host: str = "127.0.0.1",
    port: int = 8008,
    k: Annotated[int, tyro.conf.arg(aliases=("-k",))] = 10,
) -> None:
    """Open a local web page to try models on (extra: demo).

    Args:
        bundles: Folders made by `bert4rec export` or `bert4rec pipeline`; several are shown side
            by side.
        host: Address to listen on. The default is reached from this machine only.
        port: Port to listen on; 0 takes any that is free.
        k: Length of the lists.
    """
    from bert4rec_jax.explore.server import serve

    serve(bundles, host=host, port=port, k=k, console=Console(stderr=True))
