"""Checks: validate settings and arguments against the types wanted, with helpful errors."""

from __future__ import annotations

import dataclasses
import difflib
import math
import operator
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from os import PathLike
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from bert4rec_jax.errors import UserError

SPACED_ZONE = r"([T ][\d:.]+) (?:UTC|([+-]\d\d(?::?\d\d)?))$"  # after a time; UTC is implied


class ConfigError(UserError, ValueError):
    """A setting or an argument that is not valid."""


def require(valid: bool, name: str, value: object, expected: str) -> None:
    """Raise an error unless a config value is valid.

    Raises:
      ConfigError: `valid` is false.
    """
    if not valid:
        raise ConfigError(f"{name} is {value!r}; expected {expected}")


def require_a(kind: Any, value: object, name: str, expected: str | None = None) -> None:
    """Raise an error unless an argument is of a type.

    `expected` says what it should be, if the name of the type does not.

    Raises:
      ConfigError: the value is no `kind`.
    """
    if not isinstance(value, kind):
        raise ConfigError(
            f"{name} is of type {type(value).__name__}; expected {expected or kind.__name__}"
        )


def require_whole(value: object, name: str) -> int:
    """A Python or NumPy integer as an int.

    Raises:
      ConfigError: the value is none.
    """
    number = _whole(value)
    require(number is not None, name, value, "a whole number")
    assert number is not None
    return number


def require_path(value: object, name: str) -> Path:
    """The path that text or an object such as `Path` is.

    Raises:
      ConfigError: the value is none, such as a data frame.
    """
    expected = "the path of a file or folder (write a table to a file, such as Parquet, first)"
    require_a(str | PathLike, value, name, expected)
    return Path(value)  # type: ignore[arg-type]


def require_number(value: object, name: str) -> float:
    """A Python or NumPy number as a float.

    Raises:
      ConfigError: the value is none.
    """
    number: float = _fitted(name, value, float)
    return number


def date_of(text: str, what: str) -> datetime:
    """An ISO date, with or without a time; UTC unless it names a time zone.

    A space may stand before the zone, which BigQuery writes as ` UTC`.

    Raises:
      ConfigError: the text is not such a date; `what` names it.
    """
    try:
        moment = datetime.fromisoformat(re.sub(SPACED_ZONE, r"\1\2", text))
    except ValueError:
        raise ConfigError(
            f"{what} is {text!r}; expected a date such as 2024-05-31 or 2024-05-31 18:00"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def seconds_of(date: str) -> int:
    """The seconds since 1970 of the split point; raises as `date_of`."""
    return math.ceil(date_of(date, "the split point").timestamp())


def fit_types(config: Any, section: str = "") -> None:
    """Check the values of a frozen dataclass against the types of its fields, and convert them.

    NumPy numbers, paths, lists and mappings are converted to the annotated type, so that a config
    read back from its JSON equals the original.

    Args:
      config: an instance, in its `__post_init__`; its values are replaced.
      section: prefix of its field names in messages.

    Raises:
      ConfigError: a value does not fit its field; names the first one.
    """
    made: Any = type(config)
    for name, kind in _kinds(made).items():
        place = f"{section}.{name}" if section else name
        object.__setattr__(config, name, _fitted(place, getattr(config, name), kind))


@cache
def _kinds(section: Any) -> dict[str, Any]:
    """Field name -> annotated type of a dataclass."""
    hints = get_type_hints(section)
    return {field.name: hints[field.name] for field in dataclasses.fields(section)}


def _fitted(name: str, value: Any, kind: Any) -> Any:
    """A value, checked against the type `kind` and converted to it."""
    if get_origin(kind) is Literal:
        return _chosen(name, value, get_args(kind))
    if get_origin(kind) in (Union, UnionType):
        parts = [part for part in get_args(kind) if part is not NoneType]
        if value is None or len(parts) > 1:  # of several types: the dataclass checks it by itself
            return value
        return _fitted(name, value, parts[0])
    if get_origin(kind) is tuple:
        return _pair(name, value, get_args(kind))
    if dataclasses.is_dataclass(kind):
        return _section(name, value, kind)
    if kind is bool:
        truth = isinstance(value, bool) or _kind(value) == "b"
        require(truth, name, value, "True or False")
        return bool(value)
    if kind is str:
        require(hasattr(value, "__fspath__") or isinstance(value, str), name, value, "text")
        return str(value)
    if kind is int:
        return require_whole(value, name)
    whole = _whole(value)
    number = whole if whole is not None else _float(value)
    require(number is not None, name, value, "a number")
    return float(number) if number is not None else None


def _chosen(name: str, value: Any, options: tuple[Any, ...]) -> Any:
    if isinstance(value, str) or _whole(value) is not None:
        for option in options:
            if option == value:
                return option
    shown = ", ".join(map(str, options))
    text = str(value).lower().replace("_", "-")
    close = difflib.get_close_matches(text, map(str, options), n=1)
    raise ConfigError(
        f"{name} is {value!r}; expected one of {shown}"
        + (f" (did you mean {close[0]}?)" if close else "")
    )


def _pair(name: str, value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if getattr(value, "ndim", None) == 1:
        value = value.tolist()
    fits = isinstance(value, list | tuple) and len(value) == len(kinds)
    require(fits, name, value, f"{len(kinds)} values")
    return tuple(_fitted(name, part, kind) for part, kind in zip(value, kinds))


def _section(name: str, value: Any, kind: Any) -> Any:
    if not isinstance(value, Mapping):
        require(isinstance(value, kind), name, value, f"a {kind.__name__}, or a dict of its fields")
        return value
    known = list(_kinds(kind))
    for key in value:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            raise ConfigError(
                f"{name} has no field {key!r}; its fields are {', '.join(known)}"
                + (f" (did you mean {close[0]}?)" if close else "")
            )
    return kind(**value)


def _whole(value: Any) -> int | None:
    """A Python or NumPy integer as an int; None for other values, including bools."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _float(value: Any) -> float | None:
    """A Python or NumPy float as a float; None for other values, including text."""
    scalar = isinstance(value, float) or (_kind(value) == "f" and value.ndim == 0)
    return float(value) if scalar else None


def _kind(value: Any) -> str:
    """The kind of a NumPy value's dtype, such as "f"; empty for other values."""
    return getattr(getattr(value, "dtype", None), "kind", "")
