"""EASE beside the sequential baselines: NDCG@10 on validation, under leave-one-out.

    python benchmarks/ease.py data/ml-1m

EASE (Steck, WWW 2019) is the strongest of the simple models that do not read the order of a
history. It is not a baseline of every run because its `[V, V]` inverse is dense, and because the
Markov chain has been above it on every log here. Both get the same care: a grid of settings, and
decayed weights for older items.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import tyro
from rich.console import Console
from rich.table import Table

from bert4rec_jax.data.split import Cases, leave_one_out
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.evaluation.baselines import Scores, Settings, Stop
from bert4rec_jax.evaluation.evaluator import Evaluator
from bert4rec_jax.evaluation.histories import decayed_histories, training_rows
from bert4rec_jax.evaluation.tuning import GRIDS, tune


@dataclass(frozen=True, eq=False)
class Ease:
    """Scores item j by `Σ_k decay^k · B[h_k, j]` over the k-th last items h_k of the history.

    `B = I - P / diag(P)`, columns divided, with `P = (XᵀX + λI)⁻¹` and the binary user-item matrix
    X, reproduces X from itself with least squares and a zero diagonal.

    Attributes:
      penalty: λ.
      decay: weight of an item relative to the next newer one, in [0, 1).
      weights: `[V, V]`, B.
      trained: `[V]`, whether an item has a training event; others rank last.
    """

    penalty: float
    decay: float
    weights: Scores = field(repr=False)
    trained: npt.NDArray[np.bool_] = field(repr=False)

    name = "ease"

    @property
    def settings(self) -> Settings:
        """The hyper-parameters."""
        return {"penalty": self.penalty, "decay": self.decay}

    @classmethod
    def fit(cls, store: SequenceStore, stop: Stop, *, penalty: float, decay: float) -> Ease:
        """Fit on the rows `offsets[u]:stop[u]`."""
        users, tokens = training_rows(store, stop)
        items = store.catalog.num_rows
        has = sp.csr_array((np.ones(len(users)), (users, tokens)), (store.num_users, items))
        has.data[:] = 1  # an item watched twice is one entry
        shared = (has.T @ has).toarray()
        inverse = np.linalg.inv(shared + penalty * np.eye(items))
        weights = np.eye(items) - inverse / inverse.diagonal()
        return cls(penalty, decay, weights.astype(np.float32), shared.diagonal() > 0)

    def refit(self, store: SequenceStore, stop: Stop) -> Ease:
        """See `Baseline`."""
        return self.fit(store, stop, penalty=self.penalty, decay=self.decay)

    def scores(self, cases: Cases, store: SequenceStore) -> Scores:
        """`[M, V]` scores."""
        found = decayed_histories(cases, store, self.decay) @ self.weights
        return np.where(self.trained, found, found.min() - 1)


def ease(store: SequenceStore, stop: Stop) -> Iterator[Ease]:
    """The grid."""
    for penalty in (20, 100, 300, 1000, 3000):
        fitted = Ease.fit(store, stop, penalty=penalty, decay=0.5)
        for decay in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97):
            yield replace(fitted, decay=decay)


def main(store: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STORE")]) -> None:
    """Compare EASE with the baselines of every run.

    Args:
      store: A folder made by `bert4rec prepare`.
    """
    data = SequenceStore.open(store)
    split, evaluator = leave_one_out(data), Evaluator(data)
    table = Table("baseline", "settings", "NDCG@10")
    for name in ("item-knn", "skip-gram-markov", "ease"):
        grid = {**GRIDS, "ease": ease}[name]
        found = tune(
            grid(data, split.train_stop),
            store=data,
            split=split,
            rank=lambda baseline, cases: evaluator.rank_scorer(baseline, cases).ranks,
        )
        settings = ", ".join(f"{key} {value}" for key, value in found.chosen.settings.items())
        table.add_row(name, settings, f"{found.chosen.ndcg:.4f}")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
