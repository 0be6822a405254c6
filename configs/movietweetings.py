"""MovieTweetings 5-core (ships with the package), leave-one-out: the first run on a laptop.

Command: `python train.py`. Hardware: 2 CPU cores, 3 to 4 minutes. Chosen on validation among some
thirty-five short runs (docs/results.md); seed 0: validation NDCG@10 .149, test HR@10 .261 and
NDCG@10 .151; three seeds: test NDCG@10 .151 with a standard deviation of .001 (without covisitation
.141). No test figure of these variants was read while choosing.
"""

from bert4rec_jax.config import (
    CalibrationConfig,
    Config,
    DataConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)

config = Config(
    data=DataConfig(
        path="movietweetings",
        content="catalog",
        max_length=50,
        window="tiles",
        pack=True,
        max_segments=8,
    ),
    model=ModelConfig(
        dim=128,
        heads=4,
        layers=1,
        ffn_dim=256,
        position_bias=True,
        head="linear",
        dropout=0.3,
        attention_dropout=0.1,
        init_scale=0.1,
    ),
    masking=MaskingConfig(objective="mixed", rate=0.5, last_only=0.1, own_negatives=False),
    optimizer=OptimizerConfig(schedule="linear", peak_lr=2e-3, warmup_steps=100, weight_decay=0.1),
    training=TrainingConfig(epochs=36, batch_size=32, evaluate_every=6, patience=4),
    calibration=CalibrationConfig(covisitation=True),
    workdir="runs/movietweetings",
)
