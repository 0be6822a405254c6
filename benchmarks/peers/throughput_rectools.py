"""Training throughput of RecTools' BERT4Rec, through its own data loader and trainer."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytorch_lightning as pl
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel
from report import (
    BATCH,
    DROPOUT,
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


class Clock(pl.Callback):
    """Records the time, the loss and the number of rows of every step."""

    def __init__(self):
        self.times, self.losses, self.rows = [], [], []

    def __deepcopy__(self, memo):
        """Return self: RecTools trains with a copy of the trainer, and results are read here."""
        return self

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        """Record the step."""
        self.times.append(time.perf_counter())
        self.losses.append(float(outputs["loss"]))
        self.rows.append(len(batch["x"]))


options = arguments()
histories = Histories(options.data)
users = np.repeat(np.arange(len(histories.offsets) - 1), np.diff(histories.offsets))
log = pd.DataFrame(
    {
        Columns.User: users,
        Columns.Item: histories.items,
        Columns.Weight: 1.0,
        Columns.Datetime: pd.to_datetime(np.arange(len(users)), unit="s"),
    }
)
pl.seed_everything(0, verbose=False)
clock = Clock()
model = BERT4RecModel(
    n_blocks=LAYERS,
    n_heads=HEADS,
    n_factors=WIDTH,
    dropout_rate=DROPOUT,
    mask_prob=MASK_RATE,
    session_max_len=LENGTH,
    batch_size=BATCH,
    loss="softmax",
    lr=LEARNING_RATE,
)
model._trainer = pl.Trainer(
    accelerator="cpu",
    max_epochs=-1,
    max_steps=options.warmup + options.steps,
    callbacks=[clock],
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
    logger=False,
)
model.fit(Dataset.construct(log))
report(
    "RecTools BERT4Rec",
    seconds=clock.times[-1] - clock.times[options.warmup - 1],
    steps=options.steps,
    sequences=sum(clock.rows[options.warmup :]),
    losses=clock.losses,
    packages=("rectools", "torch", "pytorch-lightning"),
)
