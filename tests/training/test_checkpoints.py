"""Checkpoints: what stays, what is refused, what is passed over, and other devices."""

import dataclasses
import functools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from bert4rec_jax.config import Config, to_json
from bert4rec_jax.errors import UserError
from bert4rec_jax.models.item_table import ItemTable
from bert4rec_jax.sharding import make_mesh, place_state
from bert4rec_jax.training.checkpoints import Checkpoints
from bert4rec_jax.training.digests import checksum
from bert4rec_jax.training.run_record import RunRecord, read_config
from bert4rec_jax.training.step import TrainState

METRIC = "ndcg@10"


class Tiny(nn.Module):
    """An item table and a dense layer."""

    def setup(self):
        self.item_table = ItemTable(64, 4, nn.initializers.normal(1.0), 0, 0.0)
        self.dense = nn.Dense(4)

    def __call__(self, tokens):
        return self.dense(self.item_table(deterministic=True)[0][tokens])


def new_state(step):
    params = Tiny().init(jax.random.key(step), jnp.zeros(3, jnp.int32))["params"]
    return TrainState(jnp.int32(step), params, optax.adam(0.1).init(params))


@functools.cache
def maker(shape):
    return jax.jit(
        new_state, out_shardings=place_state(mesh_of(shape), jax.eval_shape(new_state, 0))
    )


def state_at(step, shape=(1, 1)):
    return maker(shape)(step)


def mesh_of(shape):
    full = make_mesh()
    devices = np.asarray(jax.devices()[: shape[0] * shape[1]]).reshape(shape)
    return jax.sharding.Mesh(devices, full.axis_names, axis_types=full.axis_types)


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def opened(tmp_path, warnings):
    made = []

    def open_again(keep=2):
        for one in made:
            one.close()
        made.append(
            Checkpoints(tmp_path / "checkpoints", metric=METRIC, keep=keep, warn=warnings.append)
        )
        return made[-1]

    yield open_again
    for one in made:
        one.close()


def record(values=None, **changes):
    """A record whose validations are {step: metric}."""
    validations = [{"step": float(s), METRIC: v} for s, v in (values or {}).items()]
    fields = {"config": to_json(Config()), "catalog": "c", "data": "d", "validations": validations}
    return RunRecord(**{**fields, **changes})


def same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected)):
        np.testing.assert_array_equal(a, b)


def test_a_state_comes_back_bit_for_bit_with_its_record(opened):
    checkpoints = opened()
    checkpoints.save(state_at(5), record({5: 0.25}))
    checkpoints.wait()
    found = opened().restore_latest(state_at(0), mesh_of((1, 1)), record())
    assert found.step == 5 and found.record.validations == [{"step": 5.0, METRIC: 0.25}]
    same(found.state, state_at(5))


@pytest.mark.parametrize(("saved", "restored"), [((2, 4), (1, 1)), ((8, 1), (1, 8))])
def test_a_state_comes_back_on_other_devices(opened, saved, restored):
    checkpoints = opened()
    checkpoints.save(state_at(5, saved), record())
    checkpoints.wait()
    abstract = jax.eval_shape(lambda: state_at(0))
    found = opened().restore_latest(abstract, mesh_of(restored), record())
    same(found.state, state_at(5))
    table = found.state.params["item_table"]["embedding"]
    assert len(table.sharding.device_set) == restored[0] * restored[1]
    assert table.addressable_shards[0].data.shape[0] == 64 // restored[1]


def test_saving_does_not_see_what_comes_after(opened):
    """The state's memory is reused by the next step while the checkpoint is being written."""
    checkpoints = opened()
    state = state_at(5)
    expected = jax.device_get(state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    checkpoints.save(state, record())
    for _ in range(20):
        state = overwrite(state)
    checkpoints.wait()
    found = opened().restore_latest(jax.eval_shape(lambda: state_at(0)), mesh_of((1, 1)), record())
    same(found.state, expected)


def test_the_newest_and_the_best_stay(opened):
    checkpoints = opened(keep=2)
    values = {}
    for step, value in [(1, 0.1), (2, 0.5), (3, 0.3), (4, 0.2), (5, None), (6, 0.4), (7, None)]:
        if value is not None:
            values[step] = value
        checkpoints.save(state_at(step), record(values))
        checkpoints.wait()
    assert checkpoints.steps() == [2, 6, 7]
    assert checkpoints.best_steps(record(values).validations) == [2, 6]
    assert opened().steps() == [2, 6, 7]


def test_among_equals_the_later_is_the_best(opened):
    checkpoints = opened(keep=1)
    values = {}
    for step, value in [(1, 0.5), (2, 0.5), (3, 0.1)]:
        values[step] = value
        checkpoints.save(state_at(step), record(values))
        checkpoints.wait()
    assert checkpoints.steps() == [2, 3]
    assert checkpoints.best_steps(record(values).validations)[0] == 2


def test_a_step_saved_before_its_validation_learns_its_metric(opened):
    checkpoints = opened()
    checkpoints.save(state_at(5), record())
    checkpoints.save(state_at(5), record({5: 0.7}))
    checkpoints.wait()
    found = opened().restore_latest(state_at(0), mesh_of((1, 1)), record())
    assert found.record.validations == [{"step": 5.0, METRIC: 0.7}]


def test_nothing_saved_is_nothing_restored(opened):
    assert opened().restore_latest(state_at(0), mesh_of((1, 1)), record()) is None


def damage(folder, how):
    if how == "empty folder":
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    elif how == "another state":  # every file is whole, and only the checksum can tell
        shutil.rmtree(folder / "state")
        shutil.copytree(folder.with_name(f"{int(folder.name) - 1}") / "state", folder / "state")
    else:
        for path in folder.rglob("*"):
            if path.is_file():
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("how", ["empty folder", "truncated files", "another state"])
@pytest.mark.parametrize("validated", [{}, {2: 0.4}, {3: 0.5}], ids=["none", "before", "damaged"])
def test_a_damaged_checkpoint_is_passed_over_and_its_step_can_be_saved_again(
    opened, tmp_path, warnings, how, validated
):
    checkpoints = opened(keep=3)
    for step in (1, 2, 3):
        checkpoints.save(state_at(step), record({s: v for s, v in validated.items() if s <= step}))
        checkpoints.wait()
    damage(tmp_path / "checkpoints" / "3", how)
    checkpoints = opened(keep=3)
    found = checkpoints.restore_latest(state_at(0), mesh_of((1, 1)), record())
    assert found.step == 2
    same(found.state, state_at(2))
    assert "checkpoint 3" in warnings[0] and "cannot be read" in warnings[0]
    assert (tmp_path / "checkpoints" / "3.corrupt").is_dir()
    checkpoints.save(state_at(3), record())
    checkpoints.wait()
    same(opened().restore_latest(state_at(0), mesh_of((1, 1)), record()).state, state_at(3))


def test_what_one_process_cannot_read_no_process_takes(opened, warnings, monkeypatch):
    checkpoints = opened()
    for step in (1, 2):
        checkpoints.save(state_at(step), record())
        checkpoints.wait()
    answers = iter([True, False, True, True])  # record and state of step 2, then of step 1
    module = "bert4rec_jax.training.checkpoints"
    monkeypatch.setattr(f"{module}.everywhere", lambda here: next(answers) and here)
    found = opened().restore_latest(state_at(0), mesh_of((1, 1)), record())
    assert found.step == 1
    assert "checkpoint 2" in warnings[0] and "another process could not read it" in warnings[0]


def test_a_reader_changes_nothing_where_a_training_writes(opened, tmp_path, warnings):
    checkpoints = opened()
    for step in (1, 2):
        checkpoints.save(state_at(step), record())
        checkpoints.wait()
    folder = tmp_path / "checkpoints"
    (folder / "3.orbax-checkpoint-tmp").mkdir()  # what the next one is written to
    damage(folder / "2", "truncated files")
    before = sorted(folder.rglob("*"))
    reader = Checkpoints(folder, metric=METRIC, keep=None, warn=warnings.append)
    found = reader.restore_latest(state_at(0), mesh_of((1, 1)), record())
    assert found.step == 1 and "checkpoint 2" in warnings[0]
    damage(folder / "1", "truncated files")
    with pytest.raises(UserError, match=r"none of the 2 .* if a training is writing there, try"):
        reader.restore_latest(state_at(0), mesh_of((1, 1)), record())
    reader.close()
    assert sorted(folder.rglob("*")) == before
    again = opened()  # what a training left that was killed is removed before the next save
    again.save(state_at(4), record())
    again.wait()
    assert not (folder / "3.orbax-checkpoint-tmp").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_error(opened, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("orbax.checkpoint.CheckpointManager", refuse)
    error = r"cannot open .*: Permission denied; change its permissions"
    with pytest.raises(UserError, match=error):
        opened()
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UserError, match=error):
        read_config(tmp_path)


def test_the_config_is_that_of_the_newest_checkpoint_that_tells_it(opened, tmp_path):
    assert read_config(tmp_path / "nothing") is None
    checkpoints = opened()
    for step in (1, 2):
        checkpoints.save(state_at(step), record())
    checkpoints.wait()
    assert read_config(tmp_path) == record().config
    (checkpoints._folder / "2" / "record" / "metadata").write_text("{")
    assert read_config(tmp_path) == record().config


def test_only_damaged_checkpoints_are_an_error(opened, tmp_path):
    checkpoints = opened()
    checkpoints.save(state_at(1), record())
    checkpoints.wait()
    damage(tmp_path / "checkpoints" / "1", "empty folder")
    with pytest.raises(UserError, match=r"none of the 1 checkpoints in .* can be read"):
        opened().restore_latest(state_at(0), mesh_of((1, 1)), record())


def test_another_run_is_refused_and_nothing_set_aside(opened):
    checkpoints = opened()
    checkpoints.save(state_at(1), record())
    checkpoints.wait()
    changed = dataclasses.replace(
        Config(), training=dataclasses.replace(Config().training, batch_size=7)
    )
    arguments = state_at(0), mesh_of((1, 1))
    with pytest.raises(UserError, match=r"training\.batch_size: 128 -> 7"):
        opened().restore_latest(*arguments, record(config=to_json(changed)))
    with pytest.raises(UserError, match="the catalog does not match the checkpoints"):
        opened().restore_latest(*arguments, record(catalog="other"))
    with pytest.raises(UserError, match="the data does not match the checkpoints"):
        opened().restore_latest(*arguments, record(data="other"))
    with pytest.raises(UserError, match=r"content does not match .*none there, other now"):
        opened().restore_latest(*arguments, record(content="other"))
    assert opened().steps() == [1]


def test_the_folder_and_the_mesh_may_differ(opened):
    checkpoints = opened()
    checkpoints.save(state_at(1), record())
    checkpoints.wait()
    moved = dataclasses.replace(
        Config(), workdir="elsewhere", mesh=dataclasses.replace(Config().mesh, model=2)
    )
    found = opened().restore_latest(state_at(0), mesh_of((1, 1)), record(config=to_json(moved)))
    assert found.step == 1


def test_a_run_of_an_earlier_version_goes_on_with_the_defaults_of_new_fields(opened):
    checkpoints = opened()
    earlier = to_json(Config())
    del earlier["masking"]["loss_up"], earlier["data"]["content"]
    checkpoints.save(state_at(1), record(config=earlier))
    checkpoints.wait()
    arguments = state_at(0), mesh_of((1, 1))
    found = opened().restore_latest(*arguments, record())
    assert found.step == opened().restore(1, *arguments, found.record).step == 1
    earlier["data"]["a_field_of_long_ago"] = 1
    checkpoints = opened()
    checkpoints.save(state_at(2), record(config=earlier))
    checkpoints.wait()
    with pytest.raises(UserError, match=r"data\.a_field_of_long_ago: 1 -> 'absent'"):
        opened().restore_latest(state_at(0), mesh_of((1, 1)), record())


def test_a_failed_write_names_the_last_good_checkpoint(opened, monkeypatch):
    checkpoints = opened()
    checkpoints.save(state_at(1), record())
    checkpoints.wait()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(UserError, match=r"step 2 could not be saved.*No space left.*is step 1"):
        checkpoints.save(state_at(2), record())


def test_the_checksum_sees_any_change_and_no_mesh():
    state = state_at(3)
    expected = checksum(state)
    assert all(checksum(state_at(3, shape)) == expected for shape in [(8, 1), (2, 4), (1, 8)])
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        flat = np.asarray(leaf).copy()
        flat.reshape(-1)[-1:] += np.asarray(1, flat.dtype)
        changed = jax.tree_util.tree_map_with_path(
            lambda p, x, at=path, new=flat: jnp.asarray(new) if p == at else x, state
        )
        assert checksum(changed) != expected
    swapped = state.params["dense"]["kernel"][::-1]
    params = {**state.params, "dense": {**state.params["dense"], "kernel": swapped}}
    assert checksum(state.replace(params=params)) != expected
