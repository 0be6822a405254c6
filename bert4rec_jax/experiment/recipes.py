"""Recipes: named configs, one Python file each, and the command line that overrides them."""

from __future__ import annotations

import difflib
import importlib.util
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape

from bert4rec_jax.checks import ConfigError, require_a
from bert4rec_jax.config import Config, from_json, to_json
from bert4rec_jax.config_roles import differences
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment.effects import check_changes
from bert4rec_jax.experiment.inputs import open_data
from bert4rec_jax.experiment.start import join
from bert4rec_jax.experiment.workdir import training_in
from bert4rec_jax.processes import is_first
from bert4rec_jax.training.run_record import read_config, require_run

DEFAULT = "movietweetings"
_FOLDERS = ("init_from", "workdir")  # settings that name an earlier run


@dataclass(frozen=True)
class Recipe:
    """The contents of a recipe's file.

    Attributes:
      name: the file's name without its ending.
      config: all settings.
      adapt: `adapt(config, store) -> Config` derives settings from the data; or None. It may use
        only sizes and the lengths of histories, so that test items do not influence settings.
      about: the first line of the file's docstring.
    """

    name: str
    config: Config
    adapt: Callable[[Config, SequenceStore], Config] | None
    about: str


def shipped() -> Path:
    """The folder of the recipes: inside an installed package, beside it in a source tree."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def parse(
    arguments: list[str],
    folder: Path,
    *,
    prog: str = "train.py",
    console: Console | None = None,
) -> tuple[str, Config]:
    """Split `[RECIPE] [--section.field value ...]` into the recipe's name and its config.

    Options on the command line take precedence over settings that a recipe derives from the data.

    Args:
      arguments: the command line without the program.
      folder: where recipes are looked up by name.
      prog: what the command is called in its help.
      console: shows the settings that a recipe derives from the data.

    Raises:
      UserError: there is no such recipe, a value is impossible, or see `open_data`.
      SystemExit: with 0 after `--help`, with 2 after an unknown option or a value of another type.
    """
    named = bool(arguments) and not arguments[0].startswith("-")
    recipe = load(arguments[0] if named else DEFAULT, folder)
    known = ", ".join(names(folder))

    def overridden(default: Config) -> Config:
        return tyro.cli(
            Config,
            default=default,
            args=arguments[1:] if named else arguments,
            prog=f"{prog} [RECIPE]",
            description=f"Train BERT4Rec. Recipes: {known}.\n\n"
            f"Defaults below: {recipe.name}. {recipe.about}",
        )

    given = {name: _value_of(name, arguments) for name in _FOLDERS}
    return recipe.name, _resolved(recipe, overridden, given, console)


def recipe(
    name: str | Path = DEFAULT,
    changes: Mapping[str, Any] | None = None,
    *,
    console: Console | None = None,
) -> Config:
    """The config of a recipe with changes, as `train.py NAME --section.field VALUE ...` runs it.

    If the recipe derives settings from the data, this is done here, and the data is prepared first
    if necessary. Changes take precedence over derived settings.

    Args:
      name: the name of a recipe, or the path of its file.
      changes: values by `section.field`, such as `{"data.path": "data/mine"}`.
      console: shows the settings that a recipe derives from the data; None for no output.

    Raises:
      UserError: see `load` and `open_data`.
      ConfigError: there is no such field, or a value is impossible.
    """
    console, changes = console or Console(quiet=True), changes or {}
    require_a(Mapping, changes, "changes", "a dict, such as {'training.epochs': 3}")
    given = {name: str(changes[name]) for name in _FOLDERS if name in changes}
    return _resolved(load(str(name)), lambda config: _changed(config, changes), given, console)


def _value_of(name: str, arguments: list[str]) -> str:
    """The value of an option on the command line, the last one; empty without it."""
    found, flags = "", {f"--{name}", f"--{name.replace('_', '-')}"}
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in flags:
            found = value if equals else "".join(arguments[place + 1 : place + 2])
    return found


def _changed(config: Config, changes: Mapping[str, Any]) -> Config:
    values: dict[str, Any] = to_json(config)
    for name, value in changes.items():
        section, _, field = str(name).rpartition(".")
        fields = values.get(section, {}) if section else values
        is_section = isinstance(fields, dict)
        if not is_section or field not in fields or isinstance(fields[field], dict):
            known = _names(values)
            if isinstance(values.get(str(name)), dict):
                first = next(x for x in known if x.startswith(f"{name}."))
                raise ConfigError(f"{name} is a section of settings; give each, such as {first!r}")
            close = [x for x in known if x.endswith(f".{name}")]
            close += difflib.get_close_matches(str(name), known, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"a config has no field {name!r}{hint}; expected section.field")
        fields[field] = value
    return Config(**values)


def _names(values: Mapping[str, Any]) -> list[str]:
    """The names of all settings, as `section.field`, or `field` for one outside of sections."""
    sections = ((name, x) for name, x in values.items() if isinstance(x, dict))
    single = [name for name, x in values.items() if not isinstance(x, dict)]
    return single + [f"{section}.{field}" for section, x in sections for field in x]


def _resolved(
    recipe: Recipe,
    overridden: Callable[[Config], Config],
    given: Mapping[str, str],
    console: Console | None,
) -> Config:
    """A recipe's config with derived settings, and with overrides, which take precedence.

    `given` has the values of _FOLDERS among the overrides: what an earlier run decides has to be
    known before the overrides can be checked.
    """
    folders = [given.get(name) or getattr(recipe.config, name) for name in _FOLDERS]
    earlier = _earlier(*folders)
    default = _as_earlier(recipe.config, earlier)
    config = overridden(default)
    if config.init_from and earlier is None:
        require_run(Path(config.init_from))
    if recipe.adapt is None and not config.init_from:
        check_changes(default, config, config)
        return config
    join()  # processes alone: how many devices there are depends on the batch size found here
    console = console or Console(quiet=not is_first())
    found, adapted = "the earlier run", config
    if recipe.adapt is not None:
        with training_in(Path(config.workdir)):  # data may be prepared into it
            store = open_data(config.data, Path(config.workdir), console)
            found, adapted = "the data", _adapted(recipe, recipe.adapt, config, store)
    adapted = overridden(_as_earlier(adapted, earlier))
    check_changes(default, config, adapted)
    name = escape(recipe.name)
    console.print(f"[bold]{name}[/]: settings that follow from {found}", highlight=False)
    asked = _with_changes(to_json(recipe.config), to_json(default), to_json(config))
    for change in differences(asked, to_json(adapted)):
        console.print(f"  {change}", markup=False, highlight=False)
    return adapted


def _adapted(
    recipe: Recipe,
    adapt: Callable[[Config, SequenceStore], Config],
    config: Config,
    store: SequenceStore,
) -> Config:
    """What `adapt` returns; it is a program, and may raise or return anything."""
    try:
        adapted = adapt(config, store)
    except UserError:
        raise
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"`adapt` of the recipe {recipe.name} failed ({type(error).__name__}: {error}, in line "
            f"{line.lineno} of {line.filename}); correct it: it gets the config and the store, and "
            "returns the Config to train with"
        ) from error
    if not isinstance(adapted, Config):
        raise UserError(
            f"`adapt` of the recipe {recipe.name} returned {type(adapted).__name__}; expected "
            "the Config to train with: end it with `return replace(config, ...)`"
        )
    return adapted


def _with_changes(
    values: dict[str, Any], before: dict[str, Any], after: dict[str, Any]
) -> dict[str, Any]:
    """Settings with those changes that were made to others."""
    return {
        name: _with_changes(value, before[name], after[name])
        if isinstance(value, dict)
        else value
        if before[name] == after[name]
        else after[name]
        for name, value in values.items()
    }


def _earlier(init_from: str, workdir: str) -> Config | None:
    """The config of the run at `init_from`, if there is one."""
    folders = (init_from, workdir) if init_from else ()  # once that run is gone, this one's copy
    saved = next(filter(None, (read_config(Path(f)) for f in folders)), None)
    return from_json(saved) if saved else None


def _as_earlier(config: Config, earlier: Config | None) -> Config:
    """The config with those settings of an earlier run that its parameters depend on."""
    if earlier is None:
        return config
    read, towers = earlier.data, earlier.model.kind == "two-tower"
    return replace(
        config,
        data=replace(
            config.data,
            max_length=read.max_length,
            thumbs=read.thumbs or config.data.thumbs,
            repeats=read.repeats,
        ),
        model=earlier.model,
        masking=replace(config.masking, objective=earlier.masking.objective),
        calibration=replace(
            config.calibration, covisitation=config.calibration.covisitation and not towers
        ),
    )


def load(recipe: str, folder: Path | None = None) -> Recipe:
    """Load a recipe by its name in `folder` (None: `shipped()`), or by the path of a `.py` file.

    Raises:
      UserError: there is no such file, it cannot be loaded, or it defines no `config`.
    """
    folder = folder or shipped()
    path = Path(recipe) if recipe.endswith(".py") else folder / f"{recipe}.py"
    if not path.is_file():
        known = names(folder)
        if not known and not recipe.endswith(".py"):
            raise UserError(
                f"there are no recipes in {folder} (was train.py copied without configs/?); "
                "`bert4rec train` has those of the package: call that, or give the path of a "
                "Python file that defines `config`"
            )
        raise UserError(
            f"there is no recipe {recipe!r}; known are {', '.join(known) or 'none'}, or give "
            "the path of a Python file that defines `config`"
        )
    spec = importlib.util.spec_from_file_location(f"recipe_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # a recipe is a program, and may raise anything
        raise UserError(
            f"cannot load the recipe {path} ({type(error).__name__}: {error}); see configs/ for "
            "examples"
        ) from error
    config = getattr(module, "config", None)
    if not isinstance(config, Config):
        raise UserError(f"{path} has to define `config = Config(...)`; see configs/ for examples")
    about = (module.__doc__ or "").strip().split("\n")[0]
    return Recipe(path.stem, config, getattr(module, "adapt", None), about)


def names(folder: Path) -> list[str]:
    """The names of the recipes in a folder, sorted."""
    return sorted(path.stem for path in folder.glob("*.py"))
