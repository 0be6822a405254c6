"""Seeds: recorded runs, grouped by settings so that runs in a group differ only in their seed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bert4rec_jax.config_roles import completed, of_recipe
from bert4rec_jax.data.store import is_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.metrics_file import METRICS, read_metrics
from bert4rec_jax.evaluation.rank_file import RANKS, VALIDATION, VALIDATION_RANKS, RankFile


@dataclass(frozen=True, eq=False)
class RecordedRun:
    """The ranks of a run, with its settings and seed.

    Attributes:
      path: the path as given.
      ranks: the ranks for all test sets.
      settings: see `config_roles.of_recipe`, and the fingerprint of the data; None without a usable
        `metrics.json` next to the ranks.
      seed: the training seed, or None like `settings`.
      features: hashes of the content and of the user features; None in files of earlier versions.
    """

    path: Path
    ranks: RankFile = field(repr=False)
    settings: dict[str, Any] | None = field(repr=False)
    seed: int | None
    features: tuple[str, str] | None = None

    @classmethod
    def open(cls, path: Path, *, validation: bool = False) -> RecordedRun:
        """Open the folder of a run, or a rank file.

        Settings are read from `metrics.json` next to the ranks of a run, or from FILE.json next to
        a rank file FILE.npz.

        Args:
          path: the folder of a run or a rank file.
          validation: whether to take the ranks of validation, not of the test.

        Raises:
          UserError: there are no ranks, or they cannot be read.
        """
        if not path.exists():
            raise UserError(f"{path} is not there; give folders of runs, or {RANKS} files")
        file = ranks_in(path, validation=validation)
        if not file.is_file() and is_store(path):
            raise UserError(
                f"{path} is prepared data or a bundle, and no run; give folders of runs, or "
                f"{RANKS} files"
            )
        if not file.is_file():
            way_out = (
                "expected the folder of a run that ended; its training command with "
                "--evaluation.no-test makes the file, also of one that an earlier version ended"
                if validation
                else "expected the folder of a run that was tested: "
                f"`bert4rec evaluate {path}` tests it, and --validation compares without a test"
            )
            raise UserError(f"{path} holds no {file.name}; {way_out}")
        of_run = file.name in {RANKS, VALIDATION_RANKS}
        beside = file.with_name(METRICS) if of_run else file.with_suffix(".json")
        metrics = read_metrics(beside)
        settings, seed = _settings(metrics)
        data = metrics.get("data")
        about: dict[str, Any] = data if isinstance(data, dict) else {}
        hashes: Any = about.get("content_sha256"), about.get("users_sha256")
        features = None if None in hashes else hashes
        ranks = RankFile.read(file)
        if validation:
            if VALIDATION not in ranks.sets:
                raise UserError(
                    f"{path} holds ranks of {', '.join(ranks.sets)} and none of {VALIDATION}; give "
                    f"the folder of the run, or its {VALIDATION_RANKS}"
                )
            ranks = replace(ranks, sets={VALIDATION: ranks.sets[VALIDATION]})
        return cls(path, ranks, settings, seed, features)

    @property
    def knows_time(self) -> bool | None:
        """Whether its model knows the time of the request (`model.times`); None if unknown."""
        return bool(self.settings.get("model.times")) if self.settings else None

    def differs_in_seed(self, other: RecordedRun) -> bool:
        """Whether all that is recorded of the two runs is the same except for their seeds."""
        recorded = self.features is not None and other.features is not None
        return (
            self.settings is not None
            and self.settings == other.settings
            and not (recorded and self.features != other.features)
            and self.seed != other.seed
        )


def ranks_in(path: Path, *, validation: bool = False) -> Path:
    """The rank file in a run's folder; a path that is no folder is returned as it is."""
    return path / (VALIDATION_RANKS if validation else RANKS) if path.is_dir() else path


def groups(runs: Sequence[RecordedRun]) -> list[list[RecordedRun]]:
    """Group runs whose settings differ only in the seed; groups are ordered by their first run.

    A group has each seed once. Of two runs with the same settings and seed, which may have been
    trained by different commits or devices, the second starts a group of its own.
    """
    found: list[list[RecordedRun]] = []
    for run in runs:
        for group in found:
            if all(run.differs_in_seed(member) for member in group):
                group.append(run)
                break
        else:
            found.append([run])
    return found


def label(runs: Sequence[RecordedRun]) -> str:
    """The name of a group in tables: its path, or the common prefix of its paths, and the seeds."""
    paths = [str(run.path) for run in runs]
    if len(paths) == 1:
        return paths[0]
    shared = os.path.commonprefix(paths)  # noqa: RUF071, characters are meant
    name = f"{shared}*" if shared else f"{paths[0]}, ..."
    return f"{name} (seeds {', '.join(str(run.seed) for run in runs)})"


def labels(groups: Sequence[Sequence[RecordedRun]]) -> list[str]:
    """The names of several groups, with all paths of those that would have the same name."""
    short = [label(group) for group in groups]
    whole = [", ".join(str(run.path) for run in group) for group in groups]
    return [long if short.count(name) > 1 else name for name, long in zip(short, whole)]


def _settings(metrics: dict[str, Any]) -> tuple[dict[str, Any] | None, int | None]:
    """The settings of a run without its seed, and the seed; None for both if not recorded."""
    try:
        config, fingerprint = completed(metrics["config"]), metrics["data"]["fingerprint"]
        return {**of_recipe(config), "fingerprint": fingerprint}, config["training"]["seed"]
    except (KeyError, TypeError, AttributeError):
        return None, None
