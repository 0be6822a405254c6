"""Models of other libraries beside a run of this package, from the ranks that each gave.

    python benchmarks/compare_ranks.py runs/movietweetings/ranks.npz runs/rectools/ranks.npz

Prints one Markdown table per test set that all files hold: 95 % bootstrap intervals over users, and
the lead of the first file's BERT4Rec over every other model, paired by user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import tyro

from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.bootstrap import Interval, differences, intervals
from bert4rec_jax.evaluation.metrics import contributions

_OURS = "BERT4Rec"
_METRICS = ("hr@10", "ndcg@10")


def main(
    ours: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RANKS")],
    others: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RANKS")] = (),
    resamples: int = 1000,
) -> None:
    """Compare ranks.

    Args:
        ours: `ranks.npz` of a run of this package.
        others: Files of the same form, over the same users in the same order.
        resamples: Of the bootstrap.
    """
    files = {path: dict(np.load(path)) for path in (ours, *others)}
    shared = set.intersection(*({name.split("/")[0] for name in file} for file in files.values()))
    for name in sorted(shared):
        ranks: dict[str, npt.NDArray[np.int64]] = {}
        for path, file in files.items():
            if not np.array_equal(file[f"{name}/users"], files[ours][f"{name}/users"]):
                raise UserError(f"{path} was asked about other users than {ours} in {name!r}")
            found = {key.split("/")[1]: value for key, value in file.items() if f"{name}/" in key}
            ranks |= {model: value for model, value in found.items() if model != "users"}
        _table(name, ranks, resamples)


def _table(name: str, ranks: dict[str, npt.NDArray[np.int64]], resamples: int) -> None:
    each = {
        model: {metric: contributions(found)[metric] for metric in _METRICS}
        for model, found in ranks.items()
    }
    print(f"\n{name}, {len(ranks[_OURS]):,} users\n")
    print("| model | HR@10 | NDCG@10 | BERT4Rec leads by (NDCG@10) |\n|---|---|---|---|")
    for model in sorted(each, key=lambda m: each[m]["ndcg@10"].mean()):
        own = intervals(each[model], rng=np.random.default_rng(0), resamples=resamples)
        cells = [f"{own[m].mean:.4f} ({own[m].low:.4f}-{own[m].high:.4f})" for m in _METRICS]
        cells.append("" if model == _OURS else _signed(each[_OURS], each[model], resamples))
        print(f"| {' | '.join([model, *cells])} |")


def _signed(
    ours: dict[str, npt.NDArray[np.float64]],
    other: dict[str, npt.NDArray[np.float64]],
    resamples: int,
) -> str:
    found = differences(ours, other, rng=np.random.default_rng(0), resamples=resamples)
    lead: Interval = found["ndcg@10"]
    return f"{lead.low:+.4f} to {lead.high:+.4f}"


if __name__ == "__main__":
    tyro.cli(main)
