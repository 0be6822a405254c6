"""Stages: one bundle, or a retriever and a ranker, as the command line names them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

CANDIDATES = 200  # that a retriever hands on unless told otherwise


def chosen_bundle(
    bundle: Path | None,
    retriever: Path | None,
    ranker: Path | None,
    candidates: int,
    blend: float,
) -> AbstractContextManager[Path]:
    """The bundle that was meant: one that was named, or a pipeline of two."""
    from bert4rec_jax.errors import UserError
    from bert4rec_jax.serving.pipeline import joined

    if retriever is not None and ranker is not None and bundle is None:
        return joined(retriever, ranker, candidates=candidates, blend=blend)
    if bundle is None or retriever is not None or ranker is not None:
        raise UserError("give one BUNDLE, or --retriever and --ranker instead of it")
    for name, given in (("candidates", candidates != CANDIDATES), ("blend", blend != 0)):
        if given:
            raise UserError(f"--{name} is for --retriever; a pipeline was made with its own number")
    return nullcontext(bundle)
