"""Pipeline: a retriever selects candidates from the whole catalog, and a ranker orders them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path

import numpy as np

from bert4rec_jax.errors import Notify, TemporaryError, UserError, warn
from bert4rec_jax.outputs import whole_folder
from bert4rec_jax.serving.bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    STAGE_FOLDERS,
    STAGES,
    Bundle,
    require_replaceable,
)
from bert4rec_jax.serving.ranking import Lists, Ranker
from bert4rec_jax.serving.requests import Requests


@dataclass(frozen=True, eq=False)
class TwoStages:
    """Answers requests like a `Ranker`, by a retriever and then a ranker.

    If a request names candidates, the retriever selects from those instead of the catalog. Items
    that it does not select are not listed, so a list has at most `candidates` items.

    Attributes:
      first: the retriever.
      second: the ranker, whose scores order the lists.
      candidates: number of items that the retriever selects for the ranker.
      blend: weight at which retriever scores are added to ranker scores before lists are ordered; 0
        leaves them out.
    """

    first: Ranker
    second: Ranker
    candidates: int
    blend: float = 0.0

    def rank(self, requests: Requests, *, top: int | None, keep_seen: bool = False) -> Lists:
        """See `Ranker.rank`.

        Raises:
          UserError: `top` is more than `candidates`; a score is NaN.
        """
        require_enough(self.candidates, top)
        found = self.first.rank(requests, top=self.candidates, keep_seen=keep_seen)
        lists = self.ordered(requests, found, keep_seen=keep_seen).first(top)
        counts = Counter(found.counts)
        counts.update(lists.counts)
        return Lists(lists.items, lists.scores, counts)

    def ordered(self, requests: Requests, found: Lists, *, keep_seen: bool = False) -> Lists:
        """The items that the retriever selected, in the order and with the scores of the lists."""
        among = replace(requests, candidates=found.items)
        lists = self.second.rank(among, top=None, keep_seen=keep_seen)
        return lists.blended(found, self.blend) if self.blend else lists


def require_enough(candidates: int, top: int | None) -> None:
    """Refuse lists that are longer than the number of items that the retriever selects.

    Raises:
      UserError: `top` is more than `candidates`.
    """
    if top is not None and top > candidates:
        raise UserError(
            f"lists of {top:,} were asked for, but the retriever hands on {candidates:,} items; "
            "ask for fewer, or for more candidates"
        )


def write_pipeline(
    retriever: str | PathLike[str],
    ranker: str | PathLike[str],
    pipeline: str | PathLike[str],
    *,
    candidates: int,
    probes: int = 0,
    blend: float = 0.0,
    notify: Notify = warn,
) -> None:
    """Write a bundle with copies of both bundles; an earlier bundle there is replaced.

    Args:
      retriever, ranker: the bundles.
      pipeline: the folder to make.
      candidates, probes, blend: see `Bundle`.
      notify: called with a sentence if some items can never be listed; by default a Python warning.

    Raises:
      UserError: see `Bundle.open` and `Bundle.behind`; or `pipeline` exists and is no bundle,
        cannot be written, or one of the two was replaced meanwhile.
    """
    retriever, ranker, pipeline = Path(retriever), Path(ranker), Path(pipeline)
    require_replaceable(pipeline)
    for stage in (retriever, ranker):
        if pipeline.resolve().is_relative_to(stage.resolve()):
            where = "is one of" if pipeline.resolve() == stage.resolve() else "lies in one of"
            raise UserError(f"{pipeline} {where} the two stages; choose another folder")
    both = Bundle.open(ranker).behind(Bundle.open(retriever), candidates, probes, blend)
    _tell_what_is_never_listed(both, notify)
    with whole_folder(pipeline) as partial:
        for name, folder in zip(STAGE_FOLDERS, (retriever, ranker)):
            shutil.copytree(folder, partial / name)
        _write_manifest(partial, both.candidates, both.probes, both.blend)
        if Bundle.open(partial).fingerprint != both.fingerprint:
            raise TemporaryError(
                f"{retriever} or {ranker} was replaced while it was copied; run the same command "
                "again"
            )


def _tell_what_is_never_listed(pipeline: Bundle, notify: Notify) -> None:
    """Name the items that only one of the stages can score."""
    assert pipeline.retriever is not None
    stages = {"retriever": pipeline.retriever.known, "ranker": pipeline.known}
    for one, other in (("retriever", "ranker"), ("ranker", "retriever")):
        tokens = np.flatnonzero(stages[one] & ~stages[other])
        if len(tokens):
            notify(
                f"{len(tokens):,} items are never listed, such as "
                f"{pipeline.catalog.title(int(tokens[0]))}: the {one} can score them, the {other} "
                f"cannot; train the {other} with content, or on the same events"
            )


@contextmanager
def joined(retriever: Path, ranker: Path, *, candidates: int, blend: float = 0.0) -> Iterator[Path]:
    """A temporary pipeline that links to two bundles, for as long as the context is open.

    Raises:
      UserError: see `Bundle.open` and `Bundle.behind`.
    """
    both = Bundle.open(ranker).behind(Bundle.open(retriever), candidates, blend=blend)
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        pipeline = Path(folder)
        for name, bundle in zip(STAGE_FOLDERS, (retriever, ranker)):
            (pipeline / name).symlink_to(bundle.resolve(), target_is_directory=True)
        _write_manifest(pipeline, both.candidates, 0, both.blend)
        yield pipeline


def _write_manifest(folder: Path, candidates: int, probes: int, blend: float) -> None:
    stages = {"candidates": candidates, "probes": probes, "blend": blend}
    manifest = {"bundle_schema": SCHEMA_VERSION, STAGES: stages}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
