"""What `fit` returns, and what is loaded from its folder later."""

import jax
import numpy as np
import pytest
from rich.console import Console

from bert4rec_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from bert4rec_jax.errors import UserError
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.digests import digest
from bert4rec_jax.training.fit import fit
from bert4rec_jax.training.inputs import TrainingData
from bert4rec_jax.training.restore import load_best

QUIET = Console(quiet=True)


CONFIG = Config(
    data=DataConfig(path="x", max_length=8),
    model=ModelConfig(dim=8, heads=2, layers=1, ffn_dim=8),
    optimizer=OptimizerConfig(peak_lr=1e-2, warmup_steps=1),
    training=TrainingConfig(epochs=4, batch_size=32, evaluate_every=1, keep=1),
)


@pytest.mark.parametrize(
    ("values", "best"),
    [([0.1, 0.4, 0.3, 0.2], 1), ([0.4, 0.3, 0.2, 0.1], 0), ([0.1, 0.2, 0.3, 0.4], 3)],
)
def test_the_model_is_the_one_with_the_best_validation(store, tmp_path, values, best):
    config = CONFIG
    data = TrainingData(store, (6, 9))
    mesh = make_mesh(data=1, devices=jax.devices()[:1])
    asked = []

    def validate(params, poll):
        asked.append(digest(params))
        return dict.fromkeys(("hr@10", "ndcg@10", "hr@200", "mrr"), values[len(asked) - 1])

    found = fit(
        config, data, mesh=mesh, stop=np.asarray(store.offsets[1:]), folder=tmp_path,
        console=QUIET, title="", validate=validate,
    )  # fmt: skip
    assert len(asked) == 4
    assert digest(found.params) == asked[best]
    assert found.step == found.validations[best]["step"]
    assert found.last_digest == asked[-1]
    loaded = load_best(config, data, mesh=mesh, folder=tmp_path, warn=pytest.fail)
    assert digest(loaded.state.params) == asked[best] and loaded.step == found.step


def test_a_model_of_more_steps_than_asked_for_is_not_taken(store, tmp_path):
    def retrained(steps):
        return fit(
            CONFIG, TrainingData(store, (6, 9)), mesh=make_mesh(data=1, devices=jax.devices()[:1]),
            stop=np.asarray(store.offsets[1:]), folder=tmp_path / "refit", console=QUIET, title="",
            validate=None, steps=steps,
        )  # fmt: skip

    assert retrained(2).step == retrained(2).step == 2
    with pytest.raises(UserError, match=r"refit holds a model of 2 steps, and 1 are asked for"):
        retrained(1)
    assert retrained(3).step == 3
