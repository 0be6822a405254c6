"""Compiled programs, kept between runs where compiling takes longer than training may."""

from __future__ import annotations

import os

import jax

from bert4rec_jax.data.download import default_cache

_CHOSEN = "JAX_COMPILATION_CACHE_DIR"


def keep_programs() -> None:
    """Let JAX keep programs in `programs` of the package's cache folder.

    For a GPU, XLA tries many kernels per product, a minute or more per program. Nothing happens
    where somebody chose a place for programs, by JAX's variable or its config; set
    JAX_COMPILATION_CACHE_DIR to nothing to keep none.
    """
    if _CHOSEN not in os.environ and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(default_cache() / "programs"))
