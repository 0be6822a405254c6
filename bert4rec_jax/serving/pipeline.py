"""Pipeline: a retriever finds candidates in the whole catalog, a ranker orders them."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bert4rec_jax.errors import UserError
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
    """Answers requests as a `Ranker` does, by two of them.

    Candidates that a request names are cut down by the retriever like a catalog. What it does not
    hand on is not listed, so a list has at most `candidates` items.

    Attributes:
      first: of the retriever.
      second: of the ranker, whose scores order the lists.
      candidates: items that go from the first to the second.
    """

    first: Ranker
    second: Ranker
    candidates: int

    def rank(self, requests: Requests, *, top: int | None, keep_seen: bool = False) -> Lists:
        """See `Ranker.rank`.

        Raises:
          UserError: `top` is more than `candidates`; a score is NaN.
        """
        require_candidates(top, self.candidates)
        found = self.first.rank(requests, top=self.candidates, keep_seen=keep_seen)
        among = replace(requests, candidates=found.items)
        lists = self.second.rank(among, top=top, keep_seen=keep_seen)
        counts = Counter(found.counts)
        counts.update(lists.counts)
        return Lists(lists.items, lists.scores, counts)


def require_candidates(top: int | None, candidates: int) -> None:
    """Make sure that lists are not longer than what the retriever hands on.

    Raises:
      UserError: `top` is more than `candidates`.
    """
    if top is not None and top > candidates:
        raise UserError(
            f"lists of {top:,} were asked for, but the retriever hands on {candidates:,} items; "
            "ask for fewer, or for more candidates"
        )


def write_pipeline(
    retriever: Path, ranker: Path, pipeline: Path, *, candidates: int, probes: int = 0
) -> None:
    """Write a bundle that holds both; an earlier bundle there is replaced.

    Raises:
      UserError: see `Bundle.open` and `Bundle.behind`; or `pipeline` is something else, or cannot
        be written.
    """
    require_replaceable(pipeline)
    Bundle.open(ranker).behind(Bundle.open(retriever), candidates, probes)
    with whole_folder(pipeline) as partial:
        for name, folder in zip(STAGE_FOLDERS, (retriever, ranker)):
            shutil.copytree(folder, partial / name)
        _write_manifest(partial, candidates, probes)


@contextmanager
def joined(retriever: Path, ranker: Path, *, candidates: int, probes: int = 0) -> Iterator[Path]:
    """A pipeline of two bundles that stay where they are, for as long as the context is open.

    Raises:
      UserError: see `Bundle.open` and `Bundle.behind`.
    """
    Bundle.open(ranker).behind(Bundle.open(retriever), candidates, probes)
    with tempfile.TemporaryDirectory(prefix="pipeline-") as folder:
        pipeline = Path(folder)
        for name, bundle in zip(STAGE_FOLDERS, (retriever, ranker)):
            (pipeline / name).symlink_to(bundle.resolve(), target_is_directory=True)
        _write_manifest(pipeline, candidates, probes)
        yield pipeline


def _write_manifest(folder: Path, candidates: int, probes: int) -> None:
    stages = {"candidates": candidates, "probes": probes}
    manifest = {"bundle_schema": SCHEMA_VERSION, STAGES: stages}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
