"""What devices send each other in a step: as the compiled program says, and as the formula says."""

import math

import jax
import pytest

from bert4rec_jax.config import Config, DataConfig, ModelConfig, TrainingConfig
from bert4rec_jax.sharding import make_mesh
from bert4rec_jax.training.collectives import collectives, expected
from bert4rec_jax.training.description import describe

L, B, D = 12, 16, 8
CONFIG = Config(
    data=DataConfig(max_length=L),
    model=ModelConfig(dim=D, heads=2, layers=1, ffn_dim=16),
    training=TrainingConfig(batch_size=B, loss_chunk=100),
)
# Which rows were looked up is exchanged where it is less than the sum over a part of the table.
CASES = {"2 x 4, by sum": (2, 4, 256), "4 x 2, by row": (4, 2, 1024)}


@pytest.mark.parametrize(("data", "model", "rows"), list(CASES.values()), ids=list(CASES))
def test_a_step_sends_what_the_formula_says_and_never_the_table(data, model, rows):
    mesh = make_mesh(data=data, model=model)
    described = describe(CONFIG, mesh, num_rows=rows)
    parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(described.state.params))
    wanted = expected(
        mesh, batch_size=B, max_length=L, slots=described.slots, num_rows=rows, dim=D,
        other_parameters=parameters - rows * (D + 1),
    )  # fmt: skip
    found = collectives(described.compile().as_text())
    for one in found:
        assert all(rows not in shape for shape in one.shapes), f"{one} spans the item table"
        assert one.size < 4 * rows * D
    sent = sum(one.size * one.times for one in found)
    scalars = 120  # losses, norms, counts by thumb
    assert sent == pytest.approx(sum(wanted.values()), abs=scalars)


def test_one_device_sends_nothing():
    mesh = make_mesh(devices=jax.devices()[:1])
    assert expected(
        mesh, batch_size=B, max_length=L, slots=2, num_rows=256, dim=D, other_parameters=9
    ) == {}  # fmt: skip


PROGRAM = """HloModule jit_step

%body.1 (p: (s32[], f32[128])) -> (s32[], f32[128]) {
  %r.1 = (f32[128]{0}, /*index=1*/bf16[8,2]{1,0:T(8,128)(2,1)S(1)}) all-reduce(%a, %b), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}

%outer.1 (p: (s32[], f32[128])) -> (s32[], f32[128]) {
  %w.1 = (s32[], f32[128]) while(%t), condition=%c, body=%body.1, backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main.1 (p: f32[128]) -> f32[128] {
  %w.2 = (s32[], f32[128]) while(%t), condition=%c.2, body=%outer.1
  %g.1 = (f32[4,16]{1,0}, f32[8,16]{1,0}) all-gather-start(%x), replica_groups=[4,2]<=[8], dimensions={0}
  %g.2 = f32[8,16]{1,0} all-gather-done(%g.1)
  %s.1 = f32[2,16]{1,0} reduce-scatter(%x), replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}, to_apply=%add
  %p.1 = f32[3]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %a.1 = s32[9]{0} all-to-all(%x), replica_groups={{0,1}}, frontend_attributes={chain_id="0"}
  %a.2 = s32[9]{0} all-to-all(%x), replica_groups={{0,1}}, frontend_attributes={chain_id="0"}
}
"""  # noqa: E501


def test_reading_a_program():
    listed = collectives(PROGRAM, trips=3)
    found = {one.kind: one for one in listed}
    assert len(listed) == len(found) == 5, "two pieces of one chain are one collective"
    reduced = found["all-reduce"]
    assert reduced.shapes == ((128,), (8, 2)) and reduced.size == 4 * 128 + 2 * 16
    assert (reduced.devices, reduced.times) == (4, 15)
    assert reduced.sent == pytest.approx(15 * 2 * 3 / 4 * reduced.size)
    gathered = found["all-gather"]
    assert (gathered.size, gathered.devices, gathered.times) == (4 * 8 * 16, 2, 1)
    assert gathered.sent == gathered.size / 2
    scattered = found["reduce-scatter"]
    assert (scattered.size, scattered.devices) == (4 * 4 * 2 * 16, 4)
    assert found["collective-permute"].sent == 12


def test_groups_that_cannot_be_read_are_an_error():
    with pytest.raises(ValueError, match="cannot read the groups"):
        collectives(PROGRAM.replace("replica_groups=[4,2]<=[8], ", ""))
