"""Your own data: a recipe that takes lengths, rates and regularisation from the data's statistics.

Command: `python train.py general --data.path YOUR_LOG --workdir runs/mine`.
"""

from bert4rec_jax.config import (
    Config,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.store import SequenceStore

config = Config(
    data=DataConfig(path="movietweetings", content="catalog", window="tiles", pack=True),
    model=ModelConfig(
        dim=128,
        heads=4,
        ffn_dim=256,
        position_bias=True,
        head="linear",
        attention_dropout=0.1,
        init_scale=0.1,
    ),
    masking=MaskingConfig(objective="mixed", rate=0.4, last_only=0.1),
    optimizer=OptimizerConfig(schedule="linear", peak_lr=2e-3, warmup_steps=100),
    training=TrainingConfig(epochs=40, batch_size=32, evaluate_every=4, patience=3),
    workdir="runs/general",
)


def adapt(config: Config, store: SequenceStore) -> Config:
    return config
