"""This package on the grid that RecTools' models are tuned on: the same number of trials.

    python benchmarks/same_grid.py FOLDER [--split global-time] [--test]
    python benchmarks/same_grid.py FOLDER --data ml-100k --histories long

Trains the recipe `general` with the widths, depths, lengths, rates of dropout and of masking of
each trial in `peers/grids.py`, where `peers/rectools_quality.py` trains its models. What the grid
does not name is as each library has it. The trial that validation prefers is tested once, with
`--test`: as a whole and, if that is another one, alone (without what is added to its scores). The
ranks are in `FOLDER/SPLIT_TRIAL/ranks.npz`. Prints one JSON line per trial and per choice; run it
again in the same folder to continue.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from peers.grids import DEFAULTS, GRIDS

from bert4rec_jax.entry import tune_memory
from bert4rec_jax.experiment import protocol, recipes


def settings(trial: dict[str, Any]) -> dict[str, Any]:
    """A trial of the grid in the names of this package."""
    asked = {**DEFAULTS, **trial}
    found = {
        "data.max_length": asked["session_max_len"],
        "data.content": "catalog" if asked.get("facts") else "",
        "model.dim": asked["n_factors"],
        "model.heads": asked["n_heads"],
        "model.layers": asked["n_blocks"],
        "model.dropout": asked["dropout_rate"],
        "masking.rate": asked["mask_prob"],
    }
    if "batch_size" in asked:
        found["training.batch_size"] = asked["batch_size"]
    return found


def main(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")],
    data: str = "movietweetings",
    split: Literal["leave-one-out", "global-time"] = "leave-one-out",
    histories: Literal["short", "long"] = "short",
    trials: tuple[int, ...] = (0, 1, 2, 3, 4, 5),
    test: bool = False,
) -> None:
    """Train the trials that are missing, and test the best ones if asked to.

    Args:
        folder: For the runs.
        data: A known data set, a log or prepared data.
        split: What is held out.
        histories: Which grid.
        trials: Which trials of it.
        test: Test what validation prefers.
    """

    def run(trial: int, *, tested: bool) -> dict[str, Any]:
        changes = {
            **settings(GRIDS[histories][trial]),
            "data.path": data,
            "data.split": split,
            "evaluation.test": tested,
            "evaluation.baselines": False,
            "workdir": folder / f"{split}_{trial}",
        }
        return protocol.run(recipes.recipe("general", changes))

    validation: dict[int, dict[str, float]] = {}
    for trial in trials:
        found = run(trial, tested=False)
        validation[trial] = {name: x["ndcg@10"] for name, x in found["validation"].items()}
        # If no correction helped, the model is its own "alone".
        validation[trial].setdefault("BERT4Rec alone", validation[trial]["BERT4Rec"])
        line = {"split": split, "trial": trial, "settings": GRIDS[histories][trial]}
        line |= {"validation": validation[trial], "seconds": found["seconds"]}
        print(json.dumps(line), flush=True)
    answers: dict[int, dict[str, Any]] = {}  # one test serves both models
    for model in ("BERT4Rec", "BERT4Rec alone"):
        best = max(trials, key=lambda trial: validation[trial][model])
        line = {"split": split, "model": model, "best": best, "validation": validation[best][model]}
        if test:
            if best not in answers:
                answers[best] = run(best, tested=True)
            found = answers[best]
            sets = [x for x in found if x.startswith("test")]
            line["test"] = {
                name: found[name].get(model, found[name]["BERT4Rec"])["ndcg@10"] for name in sets
            }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    tune_memory()
    tyro.cli(main)
