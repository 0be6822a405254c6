"""Growth: known items keep their rows and moments, new ones begin as the unknown pair."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from bert4rec_jax.config import ModelConfig, OptimizerConfig
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.growth import earlier_tokens, grown_state
from bert4rec_jax.training.optimizer import make_optimizer
from bert4rec_jax.training.parts import build_model
from bert4rec_jax.training.step import TrainState, create_state

L = 4


def catalog(ids):
    return Catalog(tuple(ids), tuple(ids), ("",) * len(ids))


def state(rows, content_dim, seed):
    config = ModelConfig(dim=4, heads=1, layers=1, ffn_dim=4)
    model = build_model(config, num_rows=rows, max_length=L, content_dim=content_dim)
    optimizer = make_optimizer(OptimizerConfig(), lambda count: 0.0)
    return create_state(make_mesh(), model, optimizer, seed=seed, max_length=L)


def learnt(found):
    """The state after some updates: nothing in it is as it was drawn, and counts are 7."""
    generator = np.random.default_rng(0)

    def changed(leaf):
        if leaf.dtype == np.int32:
            return leaf + 7
        return jnp.asarray(generator.normal(size=leaf.shape), jnp.float32)

    return jax.tree.map(changed, found)


def test_tokens_by_external_id():
    trained = np.array([False, False, True, True, False])
    found = earlier_tokens(catalog("czab"), catalog("abc"), trained)  # c was never trained on
    assert found[:7].tolist() == [0, 1, -1, -1, 2, 3, -1]
    assert len(found) == 256


@pytest.mark.parametrize("content_dim", [0, 3])
def test_rows_and_moments_by_hand(content_dim):
    earlier, fresh = learnt(state(256, content_dim, 0)), state(512, content_dim, 1)
    tokens = np.full(512, -1)
    tokens[:2], tokens[300], tokens[5] = (0, 1), 9, 2
    found = grown_state(make_mesh(), fresh, earlier, tokens)
    assert jax.tree.structure(found) == jax.tree.structure(fresh)
    assert [x.shape for x in jax.tree.leaves(found)] == [x.shape for x in jax.tree.leaves(fresh)]
    table, before = found.params["item_table"], earlier.params["item_table"]
    for new, old in ((0, 0), (1, 1), (300, 9), (5, 2)):
        np.testing.assert_array_equal(table["embedding"][new], before["embedding"][old])
        assert table["bias"][new] == before["bias"][old]
    first = before["unknown"] if content_dim else fresh.params["item_table"]["embedding"][7]
    np.testing.assert_array_equal(table["embedding"][7], first)
    assert table["bias"][7] == (before["unknown_bias"] if content_dim else 0)
    adam, adam_before = (optax.tree_utils.tree_get(s.opt_state, "mu") for s in (found, earlier))
    np.testing.assert_array_equal(
        adam["item_table"]["embedding"][300], adam_before["item_table"]["embedding"][9]
    )
    assert not np.asarray(adam["item_table"]["embedding"][7]).any()


@pytest.mark.slow
def test_all_else_is_kept_but_for_the_step_and_the_schedule():
    earlier, fresh = learnt(state(256, 3, 0)), state(256, 3, 1)
    found = grown_state(make_mesh(), fresh, earlier, np.arange(256))
    assert int(found.step) == 0
    kept = flatten_dict(found.params)
    for path, value in flatten_dict(earlier.params).items():
        np.testing.assert_array_equal(kept[path], value)
    counting = (optax.ScaleByAdamState, optax.ScaleByScheduleState)
    nodes = jax.tree.leaves(found.opt_state, is_leaf=lambda node: isinstance(node, counting))
    counts = {type(node).__name__: int(node.count) for node in nodes if isinstance(node, counting)}
    assert counts == {"ScaleByAdamState": 7, "ScaleByScheduleState": 0}
    assert isinstance(found, TrainState)
