"""Random search: what this package reaches with as few trials as a peer had.

    python benchmarks/search.py runs/search [--trials 6] [--split global-time] [--test]

Draws settings from the ranges below, the paper's values among them, trains each and compares them
on validation. The default recipe had many more trials, so this is the comparison with
`peers/rectools_quality.py` at equal budgets. With `--test`, the trial that validation prefers is
tested, with its corrections and alone. Prints one JSON line per trial, and one for the best of
each kind; run it again in the same folder to continue.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from bert4rec_jax.entry import tune_memory
from bert4rec_jax.experiment import protocol, recipes

RANGES: dict[str, list[Any]] = {
    "data.content": ["", "catalog"],
    "data.max_length": [50, 100],
    "model.dim": [64, 128, 256],
    "model.layers": [1, 2],
    "model.heads": [2, 4],
    "model.dropout": [0.2, 0.3, 0.5],
    "model.attention_dropout": [0.1, 0.2, 0.3],
    "model.init_scale": [0.02, 0.1],
    "model.position_bias": [False, True],
    "model.head": ["gelu", "linear"],
    "model.norm": ["post", "pre"],
    "masking.objective": ["masked", "mixed", "next"],
    "masking.rate": [0.2, 0.4, 0.6],
    "masking.own_negatives": [False, True],
    "optimizer.peak_lr": [1e-3, 2e-3],
    "optimizer.weight_decay": [0.01, 0.1],
    "training.batch_size": [32, 64, 128],
}
# As long as the peer's trials; the schedule ends at the last epoch.
BUDGET = {"training.epochs": 36, "training.evaluate_every": 4, "training.patience": 3}


def drawn(seed: int, trial: int) -> dict[str, Any]:
    """The settings of a trial; they do not depend on the number of trials."""
    rng = np.random.default_rng([seed, trial])
    found = {name: values[rng.integers(len(values))] for name, values in RANGES.items()}
    if found["masking.objective"] == "next":
        del found["masking.rate"]  # nothing is masked
    return found


def main(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    trials: int = 6,
    split: Literal["leave-one-out", "global-time"] = "leave-one-out",
    seed: int = 0,
    test: bool = False,
) -> None:
    """Train the trials that are missing, and test the best one if asked to.

    Args:
        folder: For the runs.
        trials: Number of settings to try.
        split: What is held out of MovieTweetings.
        seed: Of the draws; the trainings have seed 0.
        test: Test the trial that validation prefers.
    """

    def run(trial: int, *, tested: bool) -> dict[str, Any]:
        workdir = folder / f"{split}_{trial}"
        changes = {**drawn(seed, trial), **BUDGET, "data.split": split, "workdir": str(workdir)}
        changes |= {"evaluation.test": tested, "evaluation.baselines": False}
        protocol.run(recipes.recipe("movietweetings", changes))
        found: dict[str, Any] = json.loads((workdir / "metrics.json").read_text())
        return found

    results = []
    for trial in range(trials):
        found = run(trial, tested=False)
        result = {
            "benchmark": "search",
            "split": split,
            "trial": trial,
            "settings": drawn(seed, trial),
            "validation": {name: x["ndcg@10"] for name, x in found["validation"].items()},
            "seconds": found["seconds"],
        }
        print(json.dumps(result), flush=True)
        results.append(result)
    for model in ("BERT4Rec", "BERT4Rec alone"):
        best = max(results, key=lambda x: x["validation"][model])
        answer = {"benchmark": "search", "split": split, "model": model, "best": best["trial"]}
        answer["validation"] = best["validation"][model]
        if test:
            tested = run(best["trial"], tested=True)["test"]
            answer["test"] = {name: x[model]["ndcg@10"] for name, x in tested.items()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    tune_memory()
    tyro.cli(main)
