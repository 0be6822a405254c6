"""Programs: a compilation cache shared by runs, as compiling can take longer than training."""

from __future__ import annotations

import os

import jax

from bert4rec_jax.data.download import default_cache

_CHOSEN = "JAX_COMPILATION_CACHE_DIR"


def keep_programs() -> None:
    """Turn on JAX's compilation cache, in the folder `programs` of the package's cache.

    For a GPU, XLA tries many kernels per matrix product, which takes a minute or more per program.
    Nothing happens where a cache folder is already set, by the environment variable
    JAX_COMPILATION_CACHE_DIR or by JAX's config. Set the variable to nothing to keep no programs.
    """
    if _CHOSEN not in os.environ and jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(default_cache() / "programs"))
