"""Puts the recipes of `configs/` into the package, where `bert4rec train` finds them; see
pyproject.toml for everything else."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithRecipes(build_py):
    """Builds the package and copies the recipes beside its modules."""

    def run(self) -> None:
        """Build."""
        super().run()
        if self.editable_mode:  # the package is read where it lies, beside configs/
            return
        target = Path(self.build_lib) / "bert4rec_jax" / "configs"
        target.mkdir(parents=True, exist_ok=True)
        for recipe in Path(__file__).parent.glob("configs/*.py"):
            shutil.copy(recipe, target)


setup(cmdclass={"build_py": BuildWithRecipes})
