"""MovieLens-1M with the model and settings of the BERT4Rec paper, unmodified: the starting point.

Command: `python train.py ml_1m_paper --data.path data/ml-1m` (see `ml_1m` for the data). Sun et al.
(CIKM 2019): 2 layers of width 64 with 2 heads, 200 positions, 20 % masked and one more row per
history with its last item masked beside ten with random masks, AdamW 1e-4 with linear decay,
weight decay .01, clipping at 5, batches of 256. Replications of this setting that train long enough
report HR@10 .282 and NDCG@10 .152. Written for an accelerator: the learning rate is low and the
popularity plateau long, so 2 CPU cores need many hours; not yet run to its end here.
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
        max_length=200,
        window="tiles",
    ),
    model=ModelConfig(),
    masking=MaskingConfig(rate=0.2, last_only=1 / 11),
    optimizer=OptimizerConfig(peak_lr=1e-4, warmup_steps=100, weight_decay=0.01, clip_norm=5.0),
    training=TrainingConfig(epochs=2000, batch_size=256, evaluate_every=20, patience=20),
    workdir="runs/ml_1m_paper",
)
