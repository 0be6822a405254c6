"""RecTools' BERT4Rec and SASRec on an exported split: tune on validation, then test once.

    python tuned.py rectools_quality.py SPLIT.npz FOLDER [--histories long] [--trials 0 1]
        [--models NAME] [--test]

Runs in RecTools' environment. Trains the trials of a grid (`grids.py`) that have no result in
FOLDER yet, with early stopping; the best epoch is that with the best NDCG@10 on validation.
`--histories` chooses the grid: for short histories (MovieTweetings), or for long ones
(MovieLens-100K). With `--test`, the best trial of each model is evaluated on the test cases, after
a refit for the chosen number of steps where the split refits, and the ranks are written to
FOLDER/ranks.npz.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import rectools
import torch
from grids import GRIDS
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel

MODELS = {"RecTools SASRec": SASRecModel, "RecTools BERT4Rec": BERT4RecModel}
SHARED = {"loss": "softmax", "lr": 1e-3, "batch_size": 128}


class Budget(NamedTuple):
    """How long a trial trains."""

    epochs: int  # at most
    every: int  # epochs between validations
    patience: int  # validations without a better one


# Few users make short epochs, so long histories get more of them.
BUDGETS = {
    "short": {"RecTools BERT4Rec": Budget(60, 4, 3), "RecTools SASRec": Budget(30, 2, 3)},
    "long": {"RecTools BERT4Rec": Budget(300, 10, 5), "RecTools SASRec": Budget(120, 4, 5)},
}


class Questions:
    """The split: the training rows and the evaluation cases."""

    def __init__(self, path: Path):
        arrays = dict(np.load(path))
        self.arrays, self.offsets = arrays, arrays["offsets"]
        self.items = arrays["items"]
        self.users = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        self.refits = not np.array_equal(arrays["train_stop"], arrays["refit_stop"])
        self.tests = [n.split("/")[0] for n in arrays if n.startswith("test") and "rows" in n]

    def dataset(self, stop: np.ndarray, facts: bool) -> Dataset:
        """Each user's rows up to `stop`, and genres and decades of the items if asked for."""
        kept = np.arange(len(self.items)) < stop[self.users]
        log = pd.DataFrame(
            {
                Columns.User: self.users[kept],
                Columns.Item: self.items[kept],
                Columns.Weight: 1.0,
                Columns.Datetime: pd.to_datetime(self.arrays["timestamps"][kept], unit="s"),
            }
        )
        if not facts:
            return Dataset.construct(log)
        table = pd.DataFrame(self.arrays["facts"], columns=["id", "feature", "value"])
        table["id"] = table["id"].astype(int)
        table = table[table["id"].isin(log[Columns.Item])]
        return Dataset.construct(log, item_features_df=table, cat_item_features=["genre", "decade"])

    def ranks(self, model, name: str) -> np.ndarray:
        """Ranks of a set's targets in the whole catalog, without the history; ties count against.

        Items unknown to the model score -inf. If a history has no known item, all items do.
        """
        users, rows = self.arrays[f"{name}/users"], self.arrays[f"{name}/rows"]
        ids = np.full(len(self.arrays["item_ids"]), -1)
        internal = model.data_preparator.get_known_items_sorted_internal_ids()
        ids[model.data_preparator.get_known_item_ids().astype(int)] = internal
        known = np.flatnonzero(ids >= 0)
        network = model.lightning_model.torch_model.eval()
        ranks = np.zeros(len(rows), np.int64)
        with torch.no_grad():
            table = network.item_model.get_all_embeddings()
            for start in range(0, len(rows), 256):
                part = range(start, min(start + 256, len(rows)))
                histories = [self.items[self.offsets[users[c]] : rows[c]] for c in part]
                read = [ids[h][ids[h] >= 0].tolist() for h in histories]
                asked = [(h, [1.0] * len(h), {}) for h in read if h]
                scores = np.full((len(part), len(ids)), -np.inf, np.float32)
                batch = model.data_preparator._collate_fn_recommend(asked)
                batch = {key: value.to(table.device) for key, value in batch.items()}
                hidden = network.encode_sessions(batch, table)[:, -1]
                answered = np.array([bool(h) for h in read])
                found = (hidden @ table.T).cpu().numpy()[:, ids[known]]
                scores[np.ix_(answered, known)] = found
                assert np.isfinite(found).all()
                for row, case in enumerate(part):
                    target = self.items[rows[case]]
                    rivals = ~(scores[row] < scores[row, target])
                    rivals[histories[row]] = False
                    rivals[target] = False
                    ranks[case] = 1 + rivals.sum()
        network.train()
        return ranks


class Selection(pl.Callback):
    """Validates every few epochs, keeps the best weights, and stops if there are no better ones."""

    def __init__(self, model, questions: Questions, budget: Budget):
        self.model, self.questions, self.budget = model, questions, budget
        self.found: list[dict[str, float]] = []
        self.weights = None

    def __deepcopy__(self, memo):
        """Return self: RecTools trains with a copy of the trainer, and results are read here."""
        return self

    def on_train_epoch_end(self, trainer, module) -> None:
        """Validate every few epochs."""
        epoch = trainer.current_epoch + 1
        print(f"epoch {epoch} loss {float(trainer.callback_metrics['train_loss']):.3f}", flush=True)
        if epoch % self.budget.every:
            return
        value = ndcg(self.questions.ranks(self.model, "validation"))
        self.found.append({"epoch": epoch, "step": trainer.global_step, "ndcg@10": value})
        print(json.dumps(self.found[-1]), flush=True)
        values = [f["ndcg@10"] for f in self.found]
        if value == max(values):
            self.weights = copy.deepcopy(module.torch_model.state_dict())
        since = len(values) - 1 - values.index(max(values))
        trainer.should_stop = since >= self.budget.patience


def ndcg(ranks: np.ndarray) -> float:
    """NDCG@10."""
    return float(np.where(ranks <= 10, 1 / np.log2(ranks + 1.0), 0).mean())


def train(
    name: str,
    settings: dict,
    questions: Questions,
    stop: np.ndarray,
    budget: Budget,
    *,
    steps: int = 0,
):
    """Train a model until validation stops improving, or for exactly `steps` steps if not 0."""
    pl.seed_everything(0, verbose=False)
    settings = {**SHARED, **settings}
    facts = settings.pop("facts", False)
    if name == "RecTools SASRec":
        settings.pop("mask_prob", None)
    model = MODELS[name](**settings)
    selection = Selection(model, questions, budget)
    model._trainer = pl.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=steps or -1,
        max_epochs=-1 if steps else budget.epochs,
        callbacks=[] if steps else [selection],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    model.fit(questions.dataset(stop, facts))
    if torch.cuda.is_available():
        model.lightning_model.torch_model.cuda()
    return model, selection


def main() -> None:
    """Train the trials that are missing; test if asked to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("split", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--histories", choices=list(GRIDS), default="short")
    parser.add_argument("--trials", type=int, nargs="*", default=range(6))
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    questions = Questions(options.split)
    options.folder.mkdir(parents=True, exist_ok=True)
    train_stop, refit_stop = questions.arrays["train_stop"], questions.arrays["refit_stop"]
    grid, budgets = GRIDS[options.histories], BUDGETS[options.histories]
    best: dict[str, dict] = {}
    for number in options.trials:
        for name in options.models:
            settings = grid[number]
            stem = options.folder / f"{name.split()[1].lower()}_{number}"
            if not stem.with_suffix(".json").exists():
                print(name, settings, flush=True)
                start = time.monotonic()
                _, selection = train(name, settings, questions, train_stop, budgets[name])
                torch.save(selection.weights, stem.with_suffix(".pt"))
                chosen = max(selection.found, key=lambda f: f["ndcg@10"])
                result = {
                    "model": name,
                    "trial": number,
                    "settings": {**SHARED, **settings},
                    "best": chosen,
                    "validations": selection.found,
                    "seconds": round(time.monotonic() - start),
                    "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
                    "versions": {"rectools": rectools.__version__, "torch": torch.__version__},
                }
                stem.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
            result = json.loads(stem.with_suffix(".json").read_text())
            if name not in best or result["best"]["ndcg@10"] > best[name]["best"]["ndcg@10"]:
                best[name] = {**result, "weights": stem.with_suffix(".pt")}
    print({n: (r["trial"], r["best"]) for n, r in best.items()})
    if options.test:
        asked = [f"{s}/{key}" for s in questions.tests for key in ("users", "rows")]
        ranks = {name: questions.arrays[name] for name in asked}
        for name, result in best.items():
            settings, budget = grid[result["trial"]], budgets[name]
            if questions.refits:
                steps = result["best"]["step"]
                model, _ = train(name, settings, questions, refit_stop, budget, steps=steps)
            else:
                model, _ = train(name, settings, questions, refit_stop, budget, steps=1)
                model.lightning_model.torch_model.load_state_dict(
                    torch.load(result["weights"], map_location="cpu")
                )
            for tested in questions.tests:
                ranks[f"{tested}/{name}"] = questions.ranks(model, tested)
        np.savez_compressed(options.folder / "ranks.npz", **ranks)


if __name__ == "__main__":
    main()
