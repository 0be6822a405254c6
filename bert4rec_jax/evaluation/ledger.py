"""Ledger: one line for every evaluation on a test split, and the ranks behind its metrics.

Evaluating often on the test split and keeping the best result overfits it, without training on it.
So every evaluation leaves a trace: `ledger.jsonl` records which split (by hash), which parameters
(by hash) and which metrics; `ranks.npz` records the rank of every case, from which any metric can
be computed (see `evaluation.rank_file`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bert4rec_jax.data.split import Cases
from bert4rec_jax.errors import TemporaryError
from bert4rec_jax.evaluation.comparison import Comparison
from bert4rec_jax.evaluation.rank_file import RANKS, RankFile

LEDGER = "ledger.jsonl"


def require_writable(folder: Path) -> None:
    """Check that the ledger in a folder can be written, before anything is tested.

    Raises:
      TemporaryError: it cannot; the message names the file or folder.
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
    """Append a line to a run's ledger and write the ranks of this test.

    Ranks of other models in an earlier rank file are kept if they belong to the same test. Only one
    process may do so at a time.

    Args:
      folder: the run's folder.
      comparison: the results of the test.
      sets: the tested cases, by their names in `comparison`.
      ranks: the ranks of the same test.
      about: what else identifies the test: command, split, data, parameters, device, versions.

    Raises:
      TemporaryError: the folder cannot be written.
    """
    figures = {
        name: {model.name: model.metrics["ndcg@10"] for model in models}
        for name, models in comparison.assessments.items()
    }
    append(folder, figures, sets, about=about)
    ranks.join(folder / RANKS)


def append(
    folder: Path,
    figures: Mapping[str, Mapping[str, float]],
    sets: Mapping[str, Cases],
    *,
    about: Mapping[str, Any],
) -> None:
    """Append a line to the ledger in a folder.

    Args:
      folder: the folder of the ledger.
      figures: set of cases -> model -> NDCG@10.
      sets, about: see `record`.

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
        with (folder / LEDGER).open("a+b") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # the last line was cut off, as by a full disk
                    file.write(b"\n")
            file.write((json.dumps(line) + "\n").encode())
    except OSError as error:
        raise TemporaryError(
            f"cannot write {folder / LEDGER}: {error.strerror or error}"
        ) from error


def fingerprint(cases: Cases) -> str:
    """SHA-256 over the users and store rows of a set of cases."""
    sha = hashlib.sha256()
    for values in (cases.users, cases.rows):
        sha.update(np.ascontiguousarray(values, "<i8").tobytes())
    return sha.hexdigest()
