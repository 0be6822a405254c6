"""Train a recipe: `python train.py [RECIPE] [--section.field value ...]`; `--help` lists all."""

import sys
from pathlib import Path

from bert4rec_jax.entry import run_command, run_program


def main() -> None:
    """Pick a recipe, apply overrides, train."""
    from bert4rec_jax.experiment import protocol, recipes

    recipe, config = recipes.parse(sys.argv[1:], Path(__file__).parent / "configs")
    protocol.run(config, recipe=recipe)


if __name__ == "__main__":
    run_program(lambda: run_command(main))
