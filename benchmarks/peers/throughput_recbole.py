"""Training throughput of RecBole's BERT4Rec: its model class, on rows that NumPy has masked.

RecBole's own data pipeline masks in Python loops; rows masked with NumPy favour it.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import torch
from recbole.model.sequential_recommender import BERT4Rec
from report import (
    DROPOUT,
    FFN,
    HEADS,
    LAYERS,
    LEARNING_RATE,
    LENGTH,
    MASK_RATE,
    WIDTH,
    Histories,
    arguments,
    report,
)

options = arguments()
histories = Histories(options.data)
torch.manual_seed(0)
settings = {
    "n_layers": LAYERS,
    "n_heads": HEADS,
    "hidden_size": WIDTH,
    "inner_size": FFN,
    "hidden_dropout_prob": DROPOUT,
    "attn_dropout_prob": DROPOUT,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "initializer_range": 0.02,
    "mask_ratio": MASK_RATE,
    "loss_type": "CE",
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "USER_ID_FIELD": "user",
    "ITEM_ID_FIELD": "item",
    "LIST_SUFFIX": "_list",
    "ITEM_LIST_LENGTH_FIELD": "length",
    "NEG_PREFIX": "neg_",
    "MASK_ITEM_SEQ": "tokens",
    "POS_ITEMS": "labels",
    "NEG_ITEMS": "labels",
    "MASK_INDEX": "slots",
    "device": torch.device("cpu"),
}
model = BERT4Rec(settings, SimpleNamespace(num=lambda field: histories.num_items + 1)).train()
optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
batches = histories.batches()
losses = []


def step() -> None:
    """One optimizer step."""
    rows = next(batches)
    batch = {
        name: torch.from_numpy(getattr(rows, name)).long() for name in ("tokens", "slots", "labels")
    }
    loss = model.calculate_loss(batch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())


for _ in range(options.warmup):
    step()
start = time.perf_counter()
for _ in range(options.steps):
    step()
report(
    "RecBole BERT4Rec",
    seconds=time.perf_counter() - start,
    steps=options.steps,
    sequences=options.steps * len(next(batches).tokens),
    losses=losses,
    packages=("recbole", "torch"),
)
