"""Looking rows up in a table that lies over several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert4rec_jax.sharding import exchanges_rows, look_up, make_mesh

V, D, B, L = 64, 3, 8, 5


@pytest.mark.parametrize(("model", "by_row"), [(1, True), (2, True), (4, False), (8, False)])
def test_rows_and_their_gradient_are_those_of_plain_indexing(model, by_row):
    generator = np.random.default_rng(0)
    table = generator.normal(size=(V, D)).astype(np.float32)
    upstream = jnp.asarray(generator.integers(-9, 9, (B, L, D)), jnp.float32)
    indices = jnp.asarray(generator.integers(0, V, (B, L)).clip(2, 40))  # some more than once
    mesh = make_mesh(model=model)
    assert exchanges_rows(mesh, indices=B * L, num_rows=V) == by_row

    def weighted(table):
        found = look_up(table, indices)
        return (found * upstream).sum(), found

    with jax.set_mesh(mesh):
        (_, found), gradient = jax.jit(jax.value_and_grad(weighted, has_aux=True))(table)
    np.testing.assert_array_equal(found, table[indices])
    wanted = np.zeros((V, D), np.float32)
    np.add.at(wanted, np.asarray(indices), upstream)
    np.testing.assert_array_equal(gradient, wanted)
