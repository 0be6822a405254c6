"""Training throughput of a Hugging Face BERT in PyTorch, with logits at masked slots only."""

from __future__ import annotations

import time

import torch
from report import (
    DROPOUT,
    FFN,
    HEADS,
    LAYERS,
    LEARNING_RATE,
    LENGTH,
    WIDTH,
    Histories,
    arguments,
    report,
)
from transformers import BertConfig, BertForMaskedLM

options = arguments()
histories = Histories(options.data)
torch.manual_seed(0)
model = BertForMaskedLM(
    BertConfig(
        vocab_size=histories.num_items + 2,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=FFN,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        pad_token_id=0,
    )
).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
batches = histories.batches()
losses = []


def step() -> None:
    """One optimizer step."""
    rows = next(batches)
    tokens, live = torch.from_numpy(rows.tokens).long(), torch.from_numpy(rows.live) > 0
    hidden = model.bert(tokens, attention_mask=(tokens != 0).long()).last_hidden_state
    flat = torch.from_numpy(rows.slots) + LENGTH * torch.arange(len(tokens))[:, None]
    logits = model.cls(hidden.reshape(-1, WIDTH)[flat[live]])
    labels = torch.from_numpy(rows.labels)[live].long()
    loss = torch.nn.functional.cross_entropy(logits, labels)
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
    "Hugging Face BERT",
    seconds=time.perf_counter() - start,
    steps=options.steps,
    sequences=options.steps * len(next(batches).tokens),
    losses=losses,
    packages=("transformers", "torch"),
)
