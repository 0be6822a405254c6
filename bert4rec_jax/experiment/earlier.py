"""Earlier: what a run takes over from the finished one that it begins from."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from bert4rec_jax.config import Config
from bert4rec_jax.data.split import Split, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment.seen_before import SeenBefore, seen_before
from bert4rec_jax.experiment.setting import Setting
from bert4rec_jax.features.encoding import Encoding
from bert4rec_jax.features.user_encoding import UserEncoding
from bert4rec_jax.outputs import write_json
from bert4rec_jax.processes import is_first
from bert4rec_jax.training.growth import earlier_tokens
from bert4rec_jax.training.run_record import read_config

# Copies in the workdir.
ENCODING = "encoding.json"  # of items' content
USER_ENCODING = "user_encoding.json"  # of user features
SEEN_BEFORE = "seen_before.json"  # see `experiment.seen_before`


class EarlierRun:
    """What a run takes over from the one that it begins from (`config.init_from`), if there is one.

    Copies are kept in the workdir, because that run may be removed later.

    Args:
      config: of the run.
      reopen: builds the setting of a run from its folder.
      console: shows which events are left out.
    """

    def __init__(
        self, config: Config, reopen: Callable[[Path, Console], Setting], console: Console
    ) -> None:
        self._config, self._reopen, self._console = config, reopen, console

    def encoding(self) -> Encoding | None:
        """The encoding of items' content; None if that run has none.

        Raises:
          UserError: its content came from a folder.
        """

        def find() -> Encoding | None:
            given = self._setting.config.data.content
            if given not in ("", "catalog"):
                raise UserError(
                    f"{self._config.init_from} was trained on the content in {given}, and "
                    "data.content catalog knows titles and genres alone; make content for this "
                    f"log (`bert4rec features ... --like {given}`) and give it with --data.content"
                )
            return self._setting.encoding

        made = self._kept(ENCODING, find)
        return Encoding.from_json(made) if made else None

    def user_encoding(self) -> UserEncoding | None:
        """The encoding of user features; None if that run has none."""
        made = self._kept(USER_ENCODING, lambda: self._setting.user_encoding)
        return UserEncoding.from_json(made) if made else None

    def seen_before(self, store: SequenceStore, split: Split) -> SeenBefore | None:
        """The events that the run holds out and that run was trained on; None if it is not known.

        Raises:
          UserError: that run was trained on items that the split holds out.
        """

        def find() -> SeenBefore:
            before = self._setting
            found = seen_before(
                store,
                split,
                before.store,
                before.split,
                before.seen_before,
                repeats=self._config.data.repeats,
            )
            self._refuse_warm(store, split)
            for what, count in (("validation", found.selected), ("test", found.tested)):
                if len(count):
                    self._console.print(
                        f"[yellow]{escape(self._config.init_from)} was trained on {len(count):,} "
                        f"of the events held out for {what}: cases with such a target are left out",
                        highlight=False,
                    )
            return found

        made = self._kept(SEEN_BEFORE, find)
        if made is None and self._config.init_from:
            self._console.print(
                f"[yellow]{escape(self._config.workdir)}/{SEEN_BEFORE} is missing: no case is left "
                f"out, also where {escape(self._config.init_from)} was trained on its target; if "
                "the run was copied, copy that file too",
                highlight=False,
                soft_wrap=True,
            )
        return SeenBefore.from_json(made) if made else None

    def _refuse_warm(self, store: SequenceStore, split: Split) -> None:
        if split.cold_validation is None:
            return
        before = self._setting
        trained = before.trained(before.split.refit_stop)
        tokens = earlier_tokens(store.catalog, before.store.catalog, trained.items)
        cold = store.catalog.is_item() & (train_counts(store, split.train_stop) == 0)
        known = int((tokens[cold] >= 0).sum())
        if known:
            raise UserError(
                f"{self._config.init_from} was trained on {known:,} of the {int(cold.sum()):,} "
                "items that data.split cold-items holds out, so they are not cold; train without "
                "--init-from"
            )

    def _kept(self, name: str, find: Callable[[], Any]) -> dict[str, Any] | None:
        """What `find` finds in that run, as JSON, or None; from the workdir once training began.

        Before its first checkpoint, the workdir may belong to another run that came to nothing.
        """
        workdir = Path(self._config.workdir)
        if not self._config.init_from:
            return None
        if read_config(workdir) is not None:
            return _read(workdir / name)
        found = find()
        if found is None:
            if is_first():
                (workdir / name).unlink(missing_ok=True)
            return None
        values: dict[str, Any] = found.to_json()
        if is_first():
            workdir.mkdir(parents=True, exist_ok=True)
            write_json(workdir / name, values)
        return values

    @cached_property
    def _setting(self) -> Setting:
        return self._reopen(Path(self._config.init_from), self._console)


def _read(kept: Path) -> dict[str, Any] | None:
    """A copy in the workdir; None if there is none."""
    try:
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"cannot read {kept} ({error}), which the run took over from the one that it began "
            "from; restore the file from a copy of the run, or train in another --workdir"
        ) from None
