"""Config roles: which settings have to be equal, in JSON form.

They are equal in all processes of a run, in a run and its continuation, and in the runs of a recipe
that differ only in their seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

from bert4rec_jax.checks import ConfigError
from bert4rec_jax.config import Config, from_json, to_json

# Sections, and fields as `section.field`, that neither parameters nor ranks depend on.
_WITHOUT_EFFECT = frozenset({
    "workdir", "mesh", "evaluation", "log", "final_fit", "training.save_every", "training.keep",
    "training.log_every", "training.steps_at_once",
})  # fmt: skip
# What may change between two starts of a run.
_MAY_CHANGE = _WITHOUT_EFFECT | {"calibration", "training.patience"}
# Where inputs lie. What they hold is compared by fingerprints.
_PLACES = frozenset({"data.path", "data.content", "data.users", "init_from"})
# What may differ between hosts.
_OF_HOST = _PLACES | {"workdir", "log"}


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """A copy of a config in JSON form, with the defaults of fields that came since it was saved; as
    it is where this version does not know it."""
    try:
        return to_json(from_json(values))
    except ConfigError:
        return {name: dict(v) if isinstance(v, dict) else v for name, v in values.items()}


def shared(config: Config) -> dict[str, Any]:
    """The settings that all processes of a run need to share, by `section.field`."""
    return _without(to_json(config), _OF_HOST)


def of_recipe(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that parameters and ranks depend on, except for the seed and the data's path."""
    return _without(values, _WITHOUT_EFFECT | {"training.seed", "data.path"})


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """The fields in which two configs in JSON form differ, as `name: saved -> current`.

    What may change between two starts of a run is not compared, nor where the inputs lie.
    """
    old, new = _without(saved, _MAY_CHANGE), _without(current, _MAY_CHANGE)
    pairs = ((name, old.get(name, "absent"), new.get(name, "absent")) for name in {**old, **new})
    return [f"{name}: {was!r} -> {now!r}" for name, was, now in sorted(pairs, key=lambda x: x[0])
            if was != now and not _moved(name, was, now)]  # fmt: skip


def _moved(name: str, was: str, now: str) -> bool:
    """Whether both values say where an input lies; it may have been moved, or spelled otherwise."""
    return name in _PLACES and not {was, now} & {"", "catalog", "absent"}


def _without(values: Mapping[str, Any], names: Set[str]) -> dict[str, Any]:
    """The settings by `section.field`, those of some sections and fields left out."""
    found: dict[str, Any] = {}
    for section, value in values.items():
        if section not in names:
            fields = value if isinstance(value, dict) else {}
            found |= {f"{section}.{field}": each for field, each in fields.items()}
            if not isinstance(value, dict):
                found[section] = value
    return {name: value for name, value in found.items() if name not in names}
