"""MovieLens-1M, leave-one-out, masked items only: bidirectional, no times, no content.

Command: `bert4rec prepare ml-1m.txt --output data/ml-1m --min-user-interactions 1
--min-item-interactions 1`, then `python train.py ml_1m --data.path data/ml-1m`, where ml-1m.txt is
the file of the SASRec and BERT4Rec papers (6,040 users, 3,416 items). Hardware: 2 CPU cores, 63
to 86 minutes, depending on what else ran. Three seeds: validation NDCG@10 .181 ± .002; test HR@10
.321 ± .002, NDCG@10 .183 ± .001 (docs/results.md), the first measured before rows were packed as
tightly as they are now. No test figure was read while choosing.
"""

from bert4rec_jax.config import (
    Config,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)

config = Config(
    data=DataConfig(
        path="ml-1m",
        min_user_interactions=1,
        min_item_interactions=1,
        max_length=100,
        window="tiles",
        pack=True,
        max_segments=8,
    ),
    model=ModelConfig(
        dim=128,
        heads=4,
        layers=2,
        ffn_dim=256,
        position_bias=True,
        head="linear",
        dropout=0.2,
        attention_dropout=0.1,
        init_scale=0.1,
    ),
    masking=MaskingConfig(rate=0.4, last_only=0.1),
    optimizer=OptimizerConfig(schedule="linear", peak_lr=2e-3, warmup_steps=100, weight_decay=0.05),
    training=TrainingConfig(epochs=60, batch_size=32, evaluate_every=5, patience=20),
    workdir="runs/ml_1m",
)
