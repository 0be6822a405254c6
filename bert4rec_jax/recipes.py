"""Recipes: named configs, one Python file each, and the command line that overrides them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import tyro

from bert4rec_jax.config import Config
from bert4rec_jax.errors import UserError

DEFAULT = "movietweetings"


def parse(arguments: list[str], folder: Path) -> tuple[str, Config]:
    """Split `[RECIPE] [--section.field value ...]` into the recipe's name and its config.

    Args:
      arguments: the command line without the program.
      folder: where recipes are looked up by name.

    Raises:
      UserError: there is no such recipe, or a value is impossible.
      SystemExit: with 0 after `--help`, with 2 after an unknown option or a value of another type.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    recipe = arguments[0] if named else DEFAULT
    rest = arguments[1:] if named else arguments
    config, about = load(recipe, folder)
    known = ", ".join(names(folder))
    parsed: Config = tyro.cli(
        Config,
        default=config,
        args=rest,
        prog="train.py [RECIPE]",
        description=f"Train BERT4Rec. Recipes: {known}.\n\nDefaults below: {recipe}. {about}",
    )
    return Path(recipe).stem, parsed


def load(recipe: str, folder: Path) -> tuple[Config, str]:
    """The config of a recipe (a name in `folder`, or a path) and the first line of its docstring.

    Raises:
      UserError: there is no such file, or it defines no `config`.
    """
    path = Path(recipe) if recipe.endswith(".py") else folder / f"{recipe}.py"
    if not path.is_file():
        raise UserError(
            f"there is no recipe {recipe!r}; known are {', '.join(names(folder))}, or give the "
            "path of a Python file that defines `config`"
        )
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise UserError(f"{path} has to define `config = Config(...)`; see configs/ for examples")
    return config, (module.__doc__ or "").strip().split("\n")[0]


def names(folder: Path) -> list[str]:
    """The recipes in a folder."""
    return sorted(path.stem for path in folder.glob("*.py"))
