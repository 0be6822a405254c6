"""`bert4rec pipeline`: a retriever and a ranker as one bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.cli.stages import CANDIDATES


def pipeline(
    retriever: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RETRIEVER")],
    ranker: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RANKER")],
    bundle: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="BUNDLE")],
    *,
    candidates: int = CANDIDATES,
    probes: int = 0,
    blend: float = 0.0,
) -> None:
    """Combine two bundles: the retriever finds candidates, the ranker orders them.

    Both stages should know the same items: only items that both can score are listed. A retriever
    of item ids alone never finds new items; it needs content, and `bert4rec add-items` on both
    stages.

    Args:
        retriever: A bundle of two towers (or of any model).
        ranker: A bundle of BERT4Rec (or of any model), of the same catalog.
        bundle: The folder to make; an earlier bundle there is replaced.
        candidates: Number of candidates that the retriever passes to the ranker.
        probes: For large catalogs: search only this many clusters of items. 0: search all items.
        blend: Rank by the ranker's score plus this weight times the retriever's. It pays only for
            some rankers without co-visitation counts; choose it on validation.
    """
    from bert4rec_jax.serving.pipeline import write_pipeline

    def tell(sentence: str) -> None:
        console.print(escape(sentence), highlight=False, soft_wrap=True)

    console = Console()
    write_pipeline(
        retriever, ranker, bundle,
        candidates=candidates, probes=probes, blend=blend, notify=tell,
    )  # fmt: skip
    tell(f"{bundle}: {candidates:,} candidates")
