"""Training throughput of a BERT4Rec from keras-hub's layers on JAX; logits at masked slots only."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "jax"

import time

import keras
import keras_hub
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
keras.utils.set_random_seed(0)
tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
slots = keras.Input((int(MASK_RATE * LENGTH),), dtype="int32", name="slots")
embedding = keras_hub.layers.TokenAndPositionEmbedding(
    histories.num_items + 2, LENGTH, WIDTH, tie_weights=True
)
hidden = keras.layers.Dropout(DROPOUT)(keras.layers.LayerNormalization()(embedding(tokens)))
for _ in range(LAYERS):
    layer = keras_hub.layers.TransformerEncoder(FFN, HEADS, dropout=DROPOUT, activation="gelu")
    hidden = layer(hidden, padding_mask=tokens != 0)
head = keras_hub.layers.MaskedLMHead(
    token_embedding=embedding.token_embedding, intermediate_activation="gelu"
)
model = keras.Model({"tokens": tokens, "slots": slots}, head(hidden, mask_positions=slots))
model.compile(
    optimizer=keras.optimizers.AdamW(LEARNING_RATE),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


class Losses(keras.callbacks.Callback):
    """Records the loss after every step, which Keras reports as a running mean."""

    def on_train_batch_end(self, batch, logs=None):
        """Record the loss."""
        losses.append(float(logs["loss"]))


def rows():
    """Batches for `fit`: inputs, labels and sample weights."""
    for batch in histories.batches():
        yield {"tokens": batch.tokens, "slots": batch.slots}, batch.labels, batch.live


losses: list[float] = []
source = rows()
common = {"epochs": 1, "verbose": 0, "callbacks": [Losses()]}
model.fit(source, steps_per_epoch=options.warmup, **common)
start = time.perf_counter()
model.fit(source, steps_per_epoch=options.steps, **common)
report(
    "keras-hub BERT4Rec on JAX",
    seconds=time.perf_counter() - start,
    steps=options.steps,
    sequences=options.steps * len(next(source)[1]),
    losses=losses,
    packages=("keras", "keras-hub", "jax"),
)
