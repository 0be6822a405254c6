"""MovieLens-1M, leave-one-out: the retriever of the two stages.

Command: as for `ml_1m`, then `python train.py ml_1m_two_tower --data.path data/ml-1m`. Hardware: 2
CPU cores; 20 minutes where other work shared them. Seed 0: validation HR@200 .805 and NDCG@10 .200;
test HR@200 .772, HR@10 .329 and NDCG@10 .194, read once (docs/two_stage.md tells of
earlier versions).
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
        kind="two-tower",
        dim=128,
        heads=4,
        layers=0,
        ffn_dim=256,
        position_bias=True,
        head="linear",
        dropout=0.2,
        attention_dropout=0.1,
        init_scale=0.1,
    ),
    masking=MaskingConfig(objective="next"),
    optimizer=OptimizerConfig(schedule="linear", peak_lr=2e-3, warmup_steps=100, weight_decay=0.05),
    training=TrainingConfig(
        epochs=19,
        batch_size=32,
        evaluate_every=4,
        patience=20,
        metric="hr@200",
        in_batch_negatives=1024,
    ),
    workdir="runs/ml_1m_two_tower",
)
