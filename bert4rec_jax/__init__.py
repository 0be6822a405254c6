"""BERT4Rec in JAX: a bidirectional sequence model for movie recommendation.

`bert4rec_jax.load(BUNDLE)` opens an exported model; importing the package loads nothing else.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert4rec_jax.serving.scorer import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from bert4rec_jax.serving.scorer import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
