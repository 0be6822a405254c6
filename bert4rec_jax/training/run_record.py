"""RunRecord: what a checkpoint stores about its run, to tell whether it belongs to another."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert4rec_jax.config_roles import completed, differences
from bert4rec_jax.errors import TemporaryError, UserError

CHECKPOINTS = "checkpoints"  # folder of a run


@dataclass(frozen=True)
class RunRecord:
    """What a checkpoint stores about its run, as JSON values.

    Attributes:
      config: the run's config in JSON form.
      catalog: fingerprint of the catalog, which maps rows of the item table to items.
      data: fingerprint of the prepared data.
      validations: one dict per validation so far: `step` and the metrics.
      checksum: checksum of the state that is saved with the record.
      content: fingerprint of the item features, empty without any.
      users: fingerprint of the user features, empty without any.
      seconds: time spent in training and validation so far, of all starts; steps that were lost are
        not counted.
    """

    config: dict[str, Any]
    catalog: str
    data: str
    validations: list[dict[str, float]] = field(default_factory=list)
    checksum: int = 0
    content: str = ""
    users: str = ""
    seconds: float = 0.0


def read_config(workdir: Path) -> dict[str, Any] | None:
    """The config, in JSON form, of the run in a folder; None if it has no checkpoint.

    Raises:
      TemporaryError: the folder cannot be read.
    """
    record = _newest(workdir)
    return None if record is None else dict(record["config"])


def read_data(workdir: Path) -> str | None:
    """The fingerprint of the data that the run in a folder trains on; None as for `read_config`.

    Raises:
      TemporaryError: the folder cannot be read.
    """
    record = _newest(workdir)
    return None if record is None else str(record["data"])


def _newest(workdir: Path) -> dict[str, Any] | None:
    """The record of the newest checkpoint of the run in a folder; None if it has no checkpoint.

    It is read without Orbax, as JAX may not be asked for its devices yet.
    """
    folder = workdir / CHECKPOINTS
    if not folder.is_dir():
        return None
    try:
        steps = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
    except OSError as error:
        raise cannot_open(folder, error) from error
    for step in sorted(steps, reverse=True):
        with contextlib.suppress(OSError, ValueError, LookupError):
            record = json.loads((folder / f"{step}" / "record" / "metadata").read_text("utf-8"))
            return {**record, "config": dict(record["config"])}
    return None


def require_run(workdir: Path) -> dict[str, Any]:
    """The config, in JSON form, of the run in a folder.

    Raises:
      UserError: the folder holds no run, or cannot be read.
    """
    values = read_config(workdir)
    if values is None and (workdir / "manifest.json").is_file():
        raise UserError(f"{workdir} is a bundle or a store; give the folder of a run (its workdir)")
    if values is None:
        raise UserError(f"{workdir} holds no checkpoint; train with --workdir {workdir} first")
    return values


def cannot_open(folder: Path, error: OSError) -> TemporaryError:
    """The error of a folder of checkpoints that cannot be read or made."""
    return TemporaryError(
        f"cannot open the checkpoints in {folder}: {error.strerror or error}; change its "
        "permissions or choose another workdir"
    )


def check_same_config(saved: dict[str, Any], current: dict[str, Any], folder: Path) -> None:
    """Check that a run is continued with the same settings.

    Raises:
      UserError: it is not; the message names every field that differs.
    """
    changed = differences(completed(saved), completed(current))
    if changed:
        listed = "\n  ".join(changed)
        raise UserError(
            f"{folder} holds a run with another configuration:\n  {listed}\n"
            "use the same settings to continue it, or another --workdir (with --init-from "
            f"{folder} it begins from the parameters of this one)"
        )


def check_same_run(saved: RunRecord, current: RunRecord, folder: Path) -> None:
    """Check that a checkpoint in `folder` was made with the same settings and inputs.

    Raises:
      UserError: it was not; the message says what differs.
    """
    check_same_config(saved.config, current.config, folder)
    of_catalog = (
        "Items would get each other's vectors: use the data of that run (prepare newer logs into "
        "folders of their own)"
    )
    of_content, of_users = "Use the content of that run", "Use the table of users of that run"
    inputs = (
        ("the catalog does not match", saved.catalog, current.catalog, of_catalog),
        ("the data does not match", saved.data, current.data, "Use the data of that run"),
        ("the items' content does not match", saved.content, current.content, of_content),
        ("what is known of users does not match", saved.users, current.users, of_users),
    )
    for what, before, now, remedy in inputs:
        if before != now:
            raise UserError(
                f"{what} the checkpoints in {folder} (fingerprint "
                f"{before[:12] or 'none'} there, {now[:12] or 'none'} now). {remedy}, or another "
                f"--workdir{_places(saved.config, current.config)}"
            )


def _places(saved: dict[str, Any], current: dict[str, Any]) -> str:
    """Where the inputs lay and lie, if that differs: the likely reason why they do."""
    then, now = completed(saved)["data"], completed(current)["data"]
    moved = [
        f"data.{name} was {then.get(name)!r} and is {now.get(name)!r}"
        for name in ("path", "content", "users")
        if then.get(name) != now.get(name)
    ]
    return f" ({'; '.join(moved)})" if moved else ""
