"""How many candidates are enough: the share of its ranker's NDCG@10 that a pipeline keeps.

    python benchmarks/candidates.py RETRIEVER RANKER STORE

RETRIEVER and RANKER are bundles; STORE is the prepared data of their runs, with the leave-one-out
split. Evaluates on the validation targets, with seen items excluded (with `--test FOLDER`, on the
test targets, which leaves a line in FOLDER/ledger.jsonl). Prints one JSON line per number of
candidates and weight of the retriever's scores: the recall of the retriever, NDCG@10 of the
pipeline, the share it keeps of the ranker's NDCG@10 over the whole catalog, and the paired 95 %
interval of the difference.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.data.store import SequenceStore
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation import ledger
from bert4rec_jax.evaluation.bootstrap import differences
from bert4rec_jax.evaluation.metrics import ndcg
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.evaluation import rank_cases, two_stage_ranks
from bert4rec_jax.serving.pipeline import TwoStages
from bert4rec_jax.serving.scorer import Scorer


def main(
    retriever: Annotated[Path, tyro.conf.Positional],
    ranker: Annotated[Path, tyro.conf.Positional],
    store: Annotated[Path, tyro.conf.Positional],
    candidates: tuple[int, ...] = (10, 20, 50, 100, 200, 500, 1000),
    blends: tuple[float, ...] = (0.0,),
    test: Path | None = None,
) -> None:
    """Ask a pipeline with several numbers of candidates.

    Args:
        retriever: Bundle that finds candidates.
        ranker: Bundle that orders them.
        store: Prepared data.
        candidates: Numbers of candidates to compare.
        blends: Weights of the retriever's scores to compare.
        test: Ask the test targets, and leave a line in the ledger of this folder (a run's workdir,
            say); choose the numbers without this.
    """
    if not candidates or not blends:
        raise UserError("nothing to compare; give --candidates and --blends at least one number")
    data = SequenceStore.open(store)
    first, second = Bundle.open(retriever), Bundle.open(ranker)
    bundle = max(
        (second.behind(first, cut, blend=blend) for cut in candidates for blend in blends),
        key=lambda pipeline: pipeline.candidates,
    )
    if test is not None:
        if not test.is_dir():
            raise UserError(f"{test} is no folder; give the workdir of a run with --test")
        ledger.require_writable(test)
    split = leave_one_out(data, repeats=bundle.repeats)
    cases = split.validation if test is None else split.test["test"]
    scorer = Scorer(bundle, batch_size=256)
    assert isinstance(scorer.answering, TwoStages)
    whole = ndcg(rank_cases(scorer, data, cases), 10)
    last = data.catalog.num_rows
    ranks = {
        (cut, blend): found
        for blend in blends
        for cut, found in two_stage_ranks(
            replace(scorer.answering, blend=blend), scorer, data, cases, candidates
        ).items()
    }
    if test is not None:
        figures = {"whole catalog": float(whole.mean())} | {
            f"{cut} candidates, blend {blend}": float(ndcg(found, 10).mean())
            for (cut, blend), found in ranks.items()
        }
        about = {"command": "candidates", "data": data.fingerprint, "bundle": bundle.fingerprint}
        ledger.append(test, {"test": figures}, {"test": cases}, about=about)
    for (cut, blend), found in ranks.items():
        ours = ndcg(found, 10)
        gap = differences({"ndcg": ours}, {"ndcg": whole}, rng=np.random.default_rng(0))["ndcg"]
        print(
            json.dumps(
                {
                    "candidates": cut,
                    "blend": blend,
                    "cases": len(cases),
                    "recall": round(float((found < last).mean()), 4),
                    "ndcg@10": round(float(ours.mean()), 4),
                    "of_whole_catalog": round(float(whole.mean()), 4),
                    "kept": round(float(ours.mean() / whole.mean()), 4),
                    "difference_95": [round(gap.low, 4), round(gap.high, 4)],
                }
            )
        )


if __name__ == "__main__":
    try:
        tyro.cli(main)
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
