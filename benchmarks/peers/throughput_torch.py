"""Training throughput of PyTorch on a GPU: a Hugging Face BERT, or BERT4Rec in plain PyTorch.

    python throughput_torch.py HISTORIES.npz --system plain --compile reduce-overhead --bfloat16

Batches are masked beforehand and are already on the device, the optimizer is fused, shapes are
fixed, and no loss is fetched before the clock stops. So the overhead of a training loop is left
out, which favours these systems. `plain` masks padding in attention. `flash` does not, so that the
flash kernel can be used, and attends to padding too. All compute logits at masked slots only.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from report import DROPOUT, LEARNING_RATE, LENGTH, Histories, parser, ready, report
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

BATCHES = 24


class Layer(nn.Module):
    """A post-norm layer as in the paper, with PyTorch's fused attention."""

    def __init__(self, width: int, heads: int, ffn: int, attention_dropout: float):
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.project, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.expand, self.contract = nn.Linear(width, ffn), nn.Linear(ffn, width)
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(DROPOUT)

    def forward(self, h: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """`[B, L, D] -> [B, L, D]`; `mask [B, 1, 1, L]` is true on items."""
        q, k, v = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in self.project(h).chunk(3, -1)
        )
        mixed = functional.scaled_dot_product_attention(
            q, k, v, mask, dropout_p=self.attention_dropout
        )
        h = self.norm_1(h + self.drop(self.output(mixed.transpose(1, 2).flatten(2))))
        return self.norm_2(
            h + self.drop(self.contract(functional.gelu(self.expand(h), approximate="tanh")))
        )


class Plain(nn.Module):
    """BERT4Rec: tied table, learned positions, transform, and logits at the given positions."""

    def __init__(self, options: Any, items: int):
        super().__init__()
        width = options.width
        self.items = nn.Embedding(items, width, padding_idx=0)
        self.positions = nn.Embedding(LENGTH, width)
        self.norm, self.drop = nn.LayerNorm(width), nn.Dropout(DROPOUT)
        self.layers = nn.ModuleList(
            Layer(width, options.heads, options.ffn, options.attention_dropout)
            for _ in range(options.layers)
        )
        self.transform, self.head_norm = nn.Linear(width, width), nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(items))
        self.masked = options.system == "plain"
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        """`[B, L]` tokens and `[N]` positions in the flattened batch to `[N, items]` logits."""
        h = self.items(tokens) + self.positions.weight[: tokens.shape[1]]
        h = self.drop(self.norm(h))
        mask = (tokens != 0)[:, None, None] if self.masked else None
        for layer in self.layers:
            h = layer(h, mask)
        h = self.head_norm(
            functional.gelu(self.transform(h.flatten(0, 1)[flat]), approximate="tanh")
        )
        return h @ self.items.weight.T + self.bias


class HuggingFace(nn.Module):
    """`transformers.BertForMaskedLM`, with its head at the given positions only."""

    def __init__(self, options: Any, items: int):
        super().__init__()
        from transformers import BertConfig, BertForMaskedLM

        self.model = BertForMaskedLM(
            BertConfig(
                vocab_size=items,
                hidden_size=options.width,
                num_hidden_layers=options.layers,
                num_attention_heads=options.heads,
                intermediate_size=options.ffn,
                max_position_embeddings=LENGTH,
                hidden_dropout_prob=DROPOUT,
                attention_probs_dropout_prob=options.attention_dropout,
                pad_token_id=0,
            )
        )

    def forward(self, tokens: torch.Tensor, flat: torch.Tensor) -> torch.Tensor:
        """As `Plain`."""
        hidden = self.model.bert(tokens, attention_mask=(tokens != 0).long()).last_hidden_state
        return self.model.cls(hidden.flatten(0, 1)[flat])


def main() -> None:
    """Measure and print the line."""
    asked = parser()
    asked.add_argument("--compile", choices=("none", "default", "reduce-overhead"), default="none")
    asked.add_argument("--device", default="cuda")
    options = asked.parse_args()
    histories = Histories(options.data)
    device = torch.device(options.device)
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, as JAX uses it
    kind = HuggingFace if options.system == "hugging_face" else Plain
    model = kind(options, histories.num_items + 2).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=device.type == "cuda")

    def loss_of(tokens: torch.Tensor, flat: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.bfloat16):
            logits = model(tokens, flat)
        return functional.cross_entropy(logits.float(), labels, ignore_index=-100)

    if options.compile != "none":
        loss_of = torch.compile(loss_of, mode=options.compile, dynamic=False)
    source = histories.batches(size=options.batch)
    batches = []
    for _ in range(BATCHES):
        rows = next(source)
        offsets = LENGTH * torch.arange(len(rows.tokens))[:, None]
        labels = torch.from_numpy(rows.labels).long()
        labels[torch.from_numpy(rows.live) == 0] = -100
        batches.append(
            tuple(
                x.to(device)
                for x in (
                    torch.from_numpy(rows.tokens).long(),
                    (torch.from_numpy(rows.slots) + offsets).flatten(),
                    labels.flatten(),
                )
            )
        )
    losses = []

    def step(number: int) -> None:
        if options.compile == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        loss = loss_of(*batches[number % BATCHES])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().clone())

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    backend = [SDPBackend.FLASH_ATTENTION] if options.system == "flash" else None
    with sdpa_kernel(backend or list(SDPBackend.__members__.values())[1:]):
        for number in range(options.warmup):
            step(number)
        wait()
        with ready():
            start = time.perf_counter()
            for number in range(options.steps):
                step(number)
            wait()
            seconds = time.perf_counter() - start
    report(
        {"plain": "plain PyTorch", "flash": "plain PyTorch, flash attention without a mask"}.get(
            options.system, "Hugging Face BERT"
        ),
        seconds=seconds,
        steps=options.steps,
        sequences=options.steps * len(batches[0][0]),
        losses=[float(x) for x in losses],
        packages=("torch", *(["transformers"] if options.system == "hugging_face" else [])),
        compile=options.compile,
        width=options.width,
        layers=options.layers,
        bfloat16=options.bfloat16,
        attention_dropout=options.attention_dropout,
    )


if __name__ == "__main__":
    main()
