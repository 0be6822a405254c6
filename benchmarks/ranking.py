"""Users per second and latency of serving, compared with PyTorch and RecTools if installed.

    python benchmarks/ranking.py --dims 64 256 --histories 50 200

Exports models with random weights, measures all of them in turn (so that other load on the machine
affects all alike), and prints one JSON line per case:

- `candidates`: order 200 candidates per user of an 80,000-item catalog,
- `catalog`: the best 10 of the whole catalog, without seen items,
- `one_candidates` and `one_catalog`: the same for one user at a time, p50 and p99 in milliseconds,
  from external ids to external ids; PyTorch is only measured from tensors to tensors.

`matmul_share` is the rate of arithmetic in the model's products (bundle, float32) as a share of the
rate of one large product, measured in the same round. RecTools has no candidates per user. For all
three in one environment: `pip install torch 'rectools[torch]'`, then `pip install 'numpy>=2'`,
which RecTools 0.19 excludes but works with. Other load slows PyTorch, whose threads wait for each
other after every operation, more than XLA: measure on a quiet machine.
"""

from __future__ import annotations

import json
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro

from bert4rec_jax.config import Config, DataConfig, ModelConfig
from bert4rec_jax.data.catalog import FIRST_ITEM, Catalog
from bert4rec_jax.models.history import History
from bert4rec_jax.serving.export import TrainedModel, write_bundle
from bert4rec_jax.serving.ragged import Ragged
from bert4rec_jax.serving.requests import Requests
from bert4rec_jax.serving.scorer import Scorer, load
from bert4rec_jax.training.parts import build_model

CANDIDATES, TOP, LAYERS = 200, 10, 2
_TURN = 20  # requests of one system in a row
_REST = 0.5  # seconds: PyTorch's threads keep a core busy for a while after their work


def main(
    dims: tuple[int, ...] = (64, 256),
    histories: tuple[int, ...] = (50, 200),
    items: int = 80_000,
    users: int = 1024,
    batch_size: int = 256,
    rounds: int = 5,
    singles: int = 200,
    dtypes: tuple[str, ...] = ("float32",),
) -> None:
    """Measure ranking.

    Args:
        dims: Widths of the models.
        histories: Lengths of the histories; models have one position more.
        items: Items of the catalog.
        users: Users per measurement.
        batch_size: Users computed at once.
        rounds: Measurements of each; the median counts.
        singles: Requests of one user each.
        dtypes: Of the bundles.
    """
    for dim in dims:
        for length in histories:
            _measure(dim, length, items, users, batch_size, rounds, singles, dtypes)


def _measure(
    dim: int,
    length: int,
    items: int,
    users: int,
    batch_size: int,
    rounds: int,
    singles: int,
    dtypes: tuple[str, ...],
) -> None:
    random = np.random.default_rng(0)
    tokens = random.integers(FIRST_ITEM, items, (users, length)).astype(np.int32)
    wanted = random.integers(FIRST_ITEM, items, (users, CANDIDATES)).astype(np.int32)
    batched: dict[str, dict[str, Callable[[], Any]]] = {"candidates": {}, "catalog": {}}
    alone: dict[str, dict[str, Callable[[int], Any]]] = {"one_candidates": {}, "one_catalog": {}}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in dtypes:
            bundle = Path(folder) / dtype
            write_bundle(random_model(items, dim, length + 1), bundle, dtype=dtype)
            _add_bundle(batched, alone, f"bundle_{dtype}", load(bundle, batch_size=batch_size),
                        tokens, wanted)  # fmt: skip
    if find_spec("torch"):
        _add_torch(batched, alone, dim, items, tokens, wanted, batch_size)
    if find_spec("rectools"):
        _add_rectools(batched, dim, items, tokens, batch_size)
    about = {"dim": dim, "history": length, "items": items, "device": jax.devices()[0].device_kind}
    for case, asked in batched.items():
        seconds: dict[str, list[float]] = {name: [] for name in asked}
        rates = []
        for number in range(rounds + 1):  # the first compiles
            rate = _matmul_rate()
            for name, ask in asked.items():
                time.sleep(_REST)
                spent = _timed(ask)
                if number:
                    seconds[name].append(spent)
            rates.append(rate)
        speed = {name: users / float(np.median(spent)) for name, spent in seconds.items()}
        ours = speed["bundle_float32"]
        share = ours * _flop(case, dim, length, items) / float(np.median(rates))
        result = {
            "users_per_s": {name: round(value, 1) for name, value in speed.items()},
            "ratio": {name: round(ours / value, 2) for name, value in speed.items()},
            "matmul_gflops": round(float(np.median(rates)) / 1e9, 1),
            "matmul_share": round(share, 3),
        }
        print(json.dumps({"case": case, **about, **result}), flush=True)
    for case, single in alone.items():
        spent_by: dict[str, list[float]] = {name: [] for name in single}
        for start in range(-_TURN, singles, _TURN):  # the first turn compiles
            for name, ask_one in single.items():
                time.sleep(_REST)
                for user in range(start, start + _TURN):
                    spent = _timed(lambda: ask_one(user % users))  # noqa: B023 - called at once
                    if start >= 0:
                        spent_by[name].append(1e3 * spent)
        found = {
            name: {f"p{q}_ms": round(float(np.percentile(spent, q)), 2) for q in (50, 99)}
            for name, spent in spent_by.items()
        }
        print(json.dumps({"case": case, **about, **found}), flush=True)


def random_model(items: int, dim: int, max_length: int) -> TrainedModel:
    """A model with random weights."""
    config = Config(
        data=DataConfig(max_length=max_length),
        model=ModelConfig(dim=dim, heads=max(2, dim // 64), layers=LAYERS, ffn_dim=4 * dim),
    )
    ids = tuple(map(str, range(items)))
    catalog = Catalog(ids, ids, ("",) * items)
    model = build_model(
        config.model, num_rows=catalog.num_rows, max_length=max_length, content_dim=0
    )
    one = np.ones((1, max_length), np.int32)
    history = History(one, one.astype(np.int8), one, one, one.astype(bool))
    variables = model.init(jax.random.key(0), history, one[:, :1], deterministic=True)
    known = catalog.is_item()
    return TrainedModel(
        config, model, jax.device_get(variables), catalog, known, (3.0, 4.0), {"step": 0}
    )


def _add_bundle(
    batched: Any, alone: Any, name: str, scorer: Scorer, tokens: Any, wanted: Any
) -> None:
    def requests(candidates: Any) -> Requests:
        histories = _ragged(tokens)
        ratings = np.full(tokens.size, np.nan, np.float32)
        return Requests(histories, ratings, candidates, Ragged.empty(len(tokens)), Counter())

    rank = scorer.ranker.rank
    with_candidates, without = requests(_ragged(wanted)), requests(None)
    batched["candidates"][name] = lambda: rank(with_candidates, top=None)
    batched["catalog"][name] = lambda: rank(without, top=TOP)
    ids = np.array(scorer.catalog.item_ids, object)
    asked, listed = (list(map(list, ids[part - FIRST_ITEM])) for part in (tokens, wanted))
    alone["one_candidates"][name] = lambda user: scorer.rank([asked[user]], [listed[user]])
    alone["one_catalog"][name] = lambda user: scorer.recommend(asked[user], TOP)


def _add_torch(
    batched: Any, alone: Any, dim: int, items: int, tokens: Any, wanted: Any, batch_size: int
) -> None:
    """The same model as it is usually written: `nn.TransformerEncoder`, then the item scores."""
    import torch
    from torch import nn

    layer = nn.TransformerEncoderLayer(
        dim, max(2, dim // 64), 4 * dim, activation="gelu", batch_first=True
    )
    encoder = nn.TransformerEncoder(layer, LAYERS).eval()
    head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim)).eval()
    table = torch.randn(items + FIRST_ITEM, dim) * 0.02
    positions = torch.randn(tokens.shape[1] + 1, dim) * 0.02
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for part in (encoder, head):
        part.to(device)
    table, positions = table.to(device), positions.to(device)

    def encode(rows: Any) -> Any:
        masked = torch.cat([rows, torch.ones_like(rows[:, :1])], 1)
        return head(encoder(table[masked] + positions)[:, -1])

    @torch.inference_mode()
    def candidates(rows: Any, listed: Any) -> Any:
        rows, listed = (torch.as_tensor(part, dtype=torch.long, device=device)
                        for part in (rows, listed))  # fmt: skip
        scores = torch.einsum("bd,bcd->bc", encode(rows), table[listed])
        return scores.sort(descending=True).values.cpu()

    @torch.inference_mode()
    def catalog(rows: Any) -> Any:
        rows = torch.as_tensor(rows, dtype=torch.long, device=device)
        scores = (encode(rows) @ table.T).scatter(1, rows, -torch.inf)
        return scores.topk(TOP).indices.cpu()

    starts = range(0, len(tokens), batch_size)
    batches = [slice(start, start + batch_size) for start in starts]
    batched["candidates"]["torch"] = lambda: [candidates(tokens[b], wanted[b]) for b in batches]
    batched["catalog"]["torch"] = lambda: [catalog(tokens[b]) for b in batches]
    alone["one_candidates"]["torch"] = lambda u: candidates(tokens[u : u + 1], wanted[u : u + 1])
    alone["one_catalog"]["torch"] = lambda u: catalog(tokens[u : u + 1])


def _add_rectools(batched: Any, dim: int, items: int, tokens: Any, batch_size: int) -> None:
    """RecTools' BERT4Rec, not trained, measured through its `recommend`."""
    import pandas as pd
    from pytorch_lightning import Trainer
    from rectools.dataset import Dataset
    from rectools.models import BERT4RecModel

    warnings.filterwarnings("ignore")
    users, length = tokens.shape
    seen = np.concatenate([tokens.ravel(), np.arange(FIRST_ITEM, items + FIRST_ITEM)])
    crowd = np.arange(items) // length  # more users, so that the log has all items of the catalog
    log = pd.DataFrame(
        {
            "user_id": np.concatenate([np.repeat(np.arange(users), length), users + crowd]),
            "item_id": seen,
            "weight": 1.0,
            "datetime": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(len(seen)), "s"),
        }
    )
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    model = BERT4RecModel(
        n_factors=dim, n_heads=max(2, dim // 64), n_blocks=LAYERS, session_max_len=length + 1,
        recommend_batch_size=batch_size,
        get_trainer_func=lambda: Trainer(max_epochs=0, enable_model_summary=False, **quiet),
    )  # fmt: skip
    dataset = Dataset.construct(log)
    model.fit(dataset)
    batched["catalog"]["rectools"] = lambda: model.recommend(
        np.arange(users), dataset, k=TOP, filter_viewed=True
    )


def _ragged(rows: Any) -> Ragged:
    return Ragged.from_lengths(rows.ravel(), np.full(len(rows), rows.shape[1]))


def _timed(ask: Callable[[], Any]) -> float:
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def _matmul_rate() -> float:
    """FLOP/s of one large float32 product."""
    size = 1536 if jax.devices()[0].platform == "cpu" else 8192
    square = jax.numpy.ones((size, size))
    product = jax.jit(lambda x: x @ x)
    product(square).block_until_ready()
    return 2 * size**3 / _timed(lambda: product(square).block_until_ready())


def _flop(case: str, dim: int, length: int, items: int) -> float:
    """FLOP of the matrix products for one user; the last layer is computed at one position."""
    columns = length + 1
    full = columns * (24 * dim**2 + 4 * columns * dim)
    last = columns * 4 * dim**2 + 20 * dim**2 + 4 * columns * dim
    return (
        (LAYERS - 1) * full
        + last
        + 2 * dim**2
        + 2 * dim * (CANDIDATES if case == "candidates" else items)
    )


if __name__ == "__main__":
    tyro.cli(main)
