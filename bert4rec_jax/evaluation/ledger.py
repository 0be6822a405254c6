"""Ledger: one line for every time a test split was read, and the ranks behind its figures.

Whoever reads test figures often, and keeps the best, overfits the test split without training on
it. So reading it leaves a trace: in `ledger.jsonl`, which split (by hash), which parameters (by
hash), which figures; in `ranks.npz`, the rank of every case, from which any figure follows (see
`evaluation.rank_file`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bert4rec_jax.data.split import Cases
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.evaluation.comparison import Comparison
from bert4rec_jax.evaluation.rank_file import RANKS, RankFile

LEDGER = "ledger.jsonl"


def require_writable(folder: Path) -> None:
    """Refuse a folder whose ledger cannot be written, before anything is tested.

    Raises:
      TemporaryError: names the place.
    """
    for place in (folder, folder / LEDGER):
        if place.exists() and not os.access(place, os.W_OK):
            raise TemporaryError(
                f"{place} may not be written to, and a test leaves a line in the ledger of its "
                "run; change its permissions, or copy the run and test the copy"
            )


def record(
    folder: Path,
    comparison: Comparison,
    sets: Mapping[str, Cases],
    ranks: RankFile,
    *,
    about: Mapping[str, Any],
) -> None:
    """Append a line to the ledger of a run and write the ranks of its latest test.

    Ranks of other models that were written before stay, where they are of the same test.

    Args:
      folder: of the run.
      comparison: what was found.
      sets: the cases that were asked, by the names in `comparison`.
      ranks: of the same.
      about: what else identifies the test: command, data, parameters, versions.

    Raises:
      TemporaryError: the folder cannot be written.
    """
    figures = {
        name: {model.name: model.metrics["ndcg@10"] for model in models}
        for name, models in comparison.assessments.items()
    }
    append(folder, figures, sets, about=about)
    with suppress(UserError):  # none yet, or one that cannot be read
        ranks = ranks.joined(RankFile.read(folder / RANKS))
    ranks.write(folder / RANKS)


def append(
    folder: Path,
    figures: Mapping[str, Mapping[str, float]],
    sets: Mapping[str, Cases],
    *,
    about: Mapping[str, Any],
) -> None:
    """Append a line to the ledger in a folder.

    Args:
      folder: where it is kept.
      figures: set of cases -> model -> NDCG@10.
      sets, about: as for `record`.

    Raises:
      TemporaryError: the folder cannot be written.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        **about,
        "sets": {
            name: {
                "cases": len(sets[name]),
                "sha256": fingerprint(sets[name]),
                "ndcg@10": {model: round(float(value), 6) for model, value in models.items()},
            }
            for name, models in figures.items()
        },
    }
    try:
        with (folder / LEDGER).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise TemporaryError(
            f"cannot write {folder / LEDGER}: {error.strerror or error}"
        ) from error


def fingerprint(cases: Cases) -> str:
    """SHA-256 over the users and rows of a set of cases."""
    sha = hashlib.sha256()
    for values in (cases.users, cases.rows):
        sha.update(np.ascontiguousarray(values, "<i8").tobytes())
    return sha.hexdigest()
