"""Who gains: NDCG@10 by the popularity of the target, of two groups of runs.

    python benchmarks/popularity_halves.py STORE --runs RUN RUN --against RUN RUN [--validation]

The runs of a group differ in their seed; all are of the leave-one-out split of STORE, prepared
data. A RUN is a workdir, or a published `.npz` of ranks. The less watched half is that of the items
with a training event: half of the items, not of the events. Prints a JSON line for all targets and
for each half: the number of cases, the mean over the seeds of either group, and the gain with its
paired 95 % interval over users (1,000 resamples, means over the seeds).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import tyro

from bert4rec_jax.data.split import leave_one_out, train_counts
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.bootstrap import SEED, differences
from bert4rec_jax.evaluation.metrics import ndcg
from bert4rec_jax.evaluation.rank_file import VALIDATION
from bert4rec_jax.evaluation.seeds import RecordedRun


def main(
    store: Annotated[Path, tyro.conf.Positional],
    runs: tuple[Path, ...],
    against: tuple[Path, ...],
    model: str = "BERT4Rec",
    validation: bool = False,
) -> None:
    """Compare two groups of runs.

    Args:
        store: Prepared data.
        runs: Runs of the first group.
        against: Runs of the second group.
        model: Name of the model in the files of ranks.
        validation: Compare ranks of validation instead of test.
    """
    data = SequenceStore.open(store)
    split = leave_one_out(data)
    cases = split.validation if validation else split.test["test"]
    counts = train_counts(data, split.train_stop)
    first, second = (
        np.mean([_values(path, model, cases.users, validation) for path in paths], axis=0)
        for paths in (runs, against)
    )
    order = np.argsort(-counts, kind="stable")
    items = order[counts[order] > 0]
    less = np.isin(data.tokens[cases.rows], items[len(items) // 2 :])
    for name, chosen in (("all", less | True), ("more watched", ~less), ("less watched", less)):
        here, there = first[chosen], second[chosen]
        gain = differences({"ndcg@10": here}, {"ndcg@10": there}, rng=np.random.default_rng(SEED))[
            "ndcg@10"
        ]
        line: dict[str, Any] = {
            "targets": name,
            "cases": int(chosen.sum()),
            "ndcg@10": round(float(here.mean()), 4),
            "against": round(float(there.mean()), 4),
            "gain": [round(value, 4) for value in (gain.mean, gain.low, gain.high)],
        }
        print(json.dumps(line), flush=True)


def _values(
    path: Path, model: str, users: npt.NDArray[np.int64], validation: bool
) -> npt.NDArray[np.float64]:
    """`[M]`: NDCG@10 of each case of a run."""
    sets = RecordedRun.open(path, validation=validation).ranks.sets
    name = VALIDATION if validation else "test"
    if name not in sets or model not in sets[name].ranks:
        raise UserError(f"{path} has no ranks of {model} for {name}")
    found = sets[name]
    if not np.array_equal(found.cases["users"], users):
        raise UserError(f"the ranks of {path} are of other cases than those of the store")
    return ndcg(found.ranks[model], 10)


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
