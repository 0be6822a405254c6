"""Rows of tables that lie over several devices, and of batches that several processes provide."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert4rec_jax import sharding
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


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0, 4), (4, 8)], (0, 2)),
        ([(8, 16)], (1, 2)),
        ([(8, 12), (8, 12)], (2, 4)),  # both devices hold the same rows, and parts of the table
        ([(0, 16), (0, 16)], (0, 1)),  # the table lies over the processes
        ([(0, 4), (8, 12)], (0, 1)),  # not in a row
        ([(4, 12)], (0, 1)),  # no share of several equal ones
    ],
)
def test_a_process_provides_the_rows_of_its_devices(parts, expected, monkeypatch):
    class Placed:
        def addressable_devices_indices_map(self, shape):
            return {number: (slice(*part),) for number, part in enumerate(parts)}

    monkeypatch.setattr(sharding, "place", lambda mesh, along: Placed())
    assert sharding.row_share(None, 16) == expected


def test_one_process_provides_whole_batches():
    for model in (1, 4, 8):
        assert sharding.row_share(make_mesh(model=model), 16) == sharding.WHOLE
