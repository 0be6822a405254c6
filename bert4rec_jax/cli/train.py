"""`bert4rec train`: what `python train.py` is where only the package is installed."""

from __future__ import annotations

from typing import Annotated

import tyro


def train(
    recipe: Annotated[
        tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")
    ] = "movietweetings",
) -> None:
    """Train a recipe, or a Python file that defines a config; `train --help` lists all settings.

    Args:
        recipe: One of the recipes, or the path of a file. Settings follow it: --section.field VALUE
    """
    train_command([recipe])


def train_command(arguments: list[str]) -> None:
    """Train `[RECIPE] [--section.field VALUE ...]`."""
    from bert4rec_jax.experiment import protocol, recipes

    name, config = recipes.parse(arguments, recipes.shipped(), prog="bert4rec train")
    protocol.run(config, recipe=name)
