"""Your own data: the log decides on lengths, dropout, batches, epochs and objective instead.

Command: `python train.py general --data.path YOUR_LOG --workdir runs/mine`. `adapt` replaces the
defaults of data.max-length, model.dropout, masking.objective, optimizer.weight-decay,
training.batch-size, training.epochs, training.evaluate-every and, for sparse logs of many items,
training.in-batch-negatives and training.uniform-negatives. Its rules were found on the validation
splits of MovieTweetings, MovieLens-1M and thinned copies of them (docs/results.md); they look at
nothing but counts and lengths. What you give on the command line goes before them.
"""

from dataclasses import replace

import numpy as np

from bert4rec_jax.config import (
    CalibrationConfig,
    Config,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.store import SequenceStore

config = Config(
    data=DataConfig(content="catalog", window="tiles", pack=True, max_segments=8),
    model=ModelConfig(
        dim=128,
        heads=4,
        layers=2,
        ffn_dim=256,
        position_bias=True,
        head="linear",
        attention_dropout=0.1,
        initial="identity",
        init_scale=0.1,
    ),
    masking=MaskingConfig(objective="mixed", rate=0.4, last_only=0.1, own_negatives=False),
    optimizer=OptimizerConfig(schedule="linear", peak_lr=2e-3, warmup_steps=100),
    training=TrainingConfig(patience=4),
    calibration=CalibrationConfig(covisitation=True),
    workdir="runs/general",
)


def adapt(config: Config, store: SequenceStore) -> Config:
    """Settings for a log of N interactions with V items."""
    interactions, items = store.num_interactions, len(store.catalog)

    # Rows hold 19 of 20 histories whole; longer ones are cut into several rows, none is lost.
    long = int(np.quantile(store.lengths, 0.95))
    max_length = int(np.clip(-(-(long + 1) // 8) * 8, 16, 100))
    # Some 300 steps per epoch, but no tiny batches, and none that a laptop cannot hold.
    positions = np.clip(interactions / 300, 1600, 16_384)
    batch_size = 2 ** max(3, round(np.log2(positions / max_length)))
    # The fewer events an item has, the easier they are learnt by heart; and the less there is to
    # learn from masked histories, of which little is left.
    per_item = interactions / items
    sparse = per_item < 15
    towers = config.model.kind == "two-tower"
    objective = config.masking.objective if towers else "next" if sparse else "mixed"
    dropout = 0.5 if sparse else 0.3 if per_item < 100 else 0.2
    # A sample of the items teaches as much where there are many, in a fraction of the time.
    sampled = sparse and items > 20_000 and not towers
    negatives = config.training.in_batch_negatives, config.training.uniform_negatives
    if sampled:
        negatives = 1024, 2048
    # The cost of an epoch grows with the softmax: N x V. Sparse logs are learnt in fewer epochs.
    cost, short = interactions * items, sparse and not towers
    epochs = 12 if cost >= 5e10 and not sampled else 24 if cost >= 5e9 or short else 40

    return replace(
        config,
        data=replace(config.data, max_length=max_length),
        model=replace(config.model, dropout=dropout),
        masking=replace(config.masking, objective=objective),
        optimizer=replace(config.optimizer, weight_decay=0.05 if interactions > 300_000 else 0.1),
        training=replace(
            config.training,
            batch_size=batch_size,
            epochs=epochs,
            evaluate_every=max(1, epochs // 10),
            in_batch_negatives=negatives[0],
            uniform_negatives=negatives[1],
        ),
    )
