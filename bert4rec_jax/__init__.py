"""BERT4Rec in JAX: a bidirectional sequence model for movie recommendation.

From Python: `prepare` a log, `train` a `Config` or what a `recipe` makes of the log, `evaluate` and
`export` its run, `compare` several. `load` a bundle to ask and `explain` it, `rank_file` with it,
`add_items` to it, join two with `write_pipeline`.
Each is imported when it is first used; importing the package loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert4rec_jax.config import Config
    from bert4rec_jax.data.columns import Columns
    from bert4rec_jax.data.prepare import prepare
    from bert4rec_jax.evaluation.run_comparison import compare_runs as compare
    from bert4rec_jax.experiment.protocol import evaluate
    from bert4rec_jax.experiment.protocol import run as train
    from bert4rec_jax.experiment.recipes import recipe
    from bert4rec_jax.features.sources import Sources
    from bert4rec_jax.serving.add_items import add_items
    from bert4rec_jax.serving.explanation import explain
    from bert4rec_jax.serving.export import export
    from bert4rec_jax.serving.filters import Filters
    from bert4rec_jax.serving.job import rank_file
    from bert4rec_jax.serving.pipeline import write_pipeline
    from bert4rec_jax.serving.scorer import load
    from bert4rec_jax.serving.worker import Options as RankOptions

__version__ = "0.1.0"
__all__ = [
    "Columns",
    "Config",
    "Filters",
    "RankOptions",
    "Sources",
    "__version__",
    "add_items",
    "compare",
    "evaluate",
    "explain",
    "export",
    "load",
    "prepare",
    "rank_file",
    "recipe",
    "train",
    "write_pipeline",
]

_WHERE = {
    "Columns": ("data.columns", "Columns"),
    "Config": ("config", "Config"),
    "recipe": ("experiment.recipes", "recipe"),
    "prepare": ("data.prepare", "prepare"),
    "train": ("experiment.protocol", "run"),
    "compare": ("evaluation.run_comparison", "compare_runs"),
    "evaluate": ("experiment.protocol", "evaluate"),
    "export": ("serving.export", "export"),
    "load": ("serving.scorer", "load"),
    "explain": ("serving.explanation", "explain"),
    "rank_file": ("serving.job", "rank_file"),
    "RankOptions": ("serving.worker", "Options"),
    "Filters": ("serving.filters", "Filters"),
    "add_items": ("serving.add_items", "add_items"),
    "Sources": ("features.sources", "Sources"),
    "write_pipeline": ("serving.pipeline", "write_pipeline"),
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(f"{__name__}.{module}"), attribute)
