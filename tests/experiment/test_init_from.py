"""Incremental training: a run on newer data that begins from an earlier one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sample import interactions

from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.store import SequenceStore, write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.experiment.opening import open_setting
from bert4rec_jax.experiment.seen_before import WHY, SeenBefore
from bert4rec_jax.features.build import build, training_items

QUIET = Console(quiet=True)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(store, tmp_path_factory):
    """A run on the items 0 .. 29, and one on all 40 that begins from it."""
    folder = tmp_path_factory.mktemp("growing")
    users = np.repeat(np.arange(store.num_users), store.lengths)
    items = [store.catalog.item_id(token) for token in store.tokens]
    rows = list(zip(users, items, store.timestamps.tolist(), store.ratings.tolist()))
    titles = {
        str(i): (f"Movie {i} ({1950 + i})", "Drama|War"[: 5 + 4 * (i % 2)]) for i in range(40)
    }
    for name, kept in (("old", [row for row in rows if int(row[1]) < 30]), ("new", rows)):
        log = interactions(kept).in_time_order()
        write_store(log, folder / name, titles=titles, source=store.manifest["source"])
    old = Config(
        data=DataConfig(path=str(folder / "old"), max_length=12, content="catalog"),
        model=ModelConfig(dim=16, layers=1, ffn_dim=32, init_scale=0.2),
        masking=MaskingConfig(last_only=0.5),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=10),
        training=TrainingConfig(epochs=30, batch_size=8, evaluate_every=30),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100, baselines=False),
        workdir=str(folder / "old_run"),
    )
    protocol.run(old, recipe="old", console=QUIET)
    new = replace(
        old,
        data=replace(old.data, path=str(folder / "new")),
        training=replace(old.training, epochs=1, evaluate_every=1),
        workdir=str(folder / "new_run"),
        init_from=old.workdir,
    )
    return old, new, protocol.run(new, recipe="new", console=QUIET)


def test_one_epoch_more_knows_what_thirty_taught(runs, tmp_path):
    _, new, results = runs
    scratch = replace(new, init_from="", workdir=str(tmp_path / "scratch"))
    without = protocol.run(scratch, recipe="scratch", console=QUIET)
    assert results["test"]["BERT4Rec"]["mrr"] > 1.5 * without["test"]["BERT4Rec"]["mrr"]


def test_columns_of_content_are_those_of_the_earlier_run(runs):
    old, new, _ = runs
    before, after = (open_finished(Path(c.workdir), QUIET).setting for c in (old, new))
    assert after.encoding == before.encoding
    tokens = [s.store.catalog.token("7") for s in (before, after)]
    np.testing.assert_array_equal(before.content[tokens[0]], after.content[tokens[1]])
    assert after.store.catalog.num_tokens == before.store.catalog.num_tokens + 10


def test_the_earlier_run_may_be_gone_later(runs, tmp_path):
    old, new, results = runs
    kept = shutil.move(old.workdir, tmp_path / "elsewhere")
    try:
        again = protocol.run(new, recipe="new", console=QUIET)
        assert again["parameters_sha256"] == results["parameters_sha256"]
        assert again["steps"]["resumed_from"] == results["steps"]["done"]
    finally:
        shutil.move(kept, old.workdir)


def test_a_run_goes_on_from_an_earlier_run_that_was_moved_and_from_no_other(runs, tmp_path):
    old, new, results = runs
    moved = str(shutil.move(old.workdir, tmp_path / "moved"))
    try:
        again = protocol.run(replace(new, init_from=moved), recipe="new", console=QUIET)
        assert again["parameters_sha256"] == results["parameters_sha256"]
        assert open_finished(Path(new.workdir), QUIET).setting.config.init_from == moved
        other = replace(new, init_from=str(tmp_path / "other"))
        with pytest.raises(UserError, match=r"other holds no run, and .* --init-from .*old_run if"):
            protocol.run(other, recipe="new", console=QUIET)
        wrong = replace(new, init_from=new.workdir)
        named = rf"began from the run in {old.workdir}, and {new.workdir} holds another one"
        with pytest.raises(UserError, match=named):
            protocol.run(wrong, recipe="new", console=QUIET)
        shutil.copytree(new.workdir, old.workdir)  # in the place of the earlier run
        with pytest.raises(UserError, match=rf"and {old.workdir} holds another one"):
            protocol.run(replace(new, final_fit=True), recipe="new", console=QUIET)
        shutil.rmtree(old.workdir)
    finally:
        shutil.move(moved, old.workdir)


def test_a_run_that_does_not_say_what_it_began_from_is_told_by_the_folder(runs, tmp_path):
    """Earlier versions did not keep it."""
    old, new, results = runs
    kept = Path(new.workdir, "begun_from.json")
    said = kept.read_text()
    kept.unlink()
    try:
        again = protocol.run(new, recipe="new", console=QUIET)
        assert again["parameters_sha256"] == results["parameters_sha256"]
        copy = str(shutil.copytree(old.workdir, tmp_path / "copy"))
        with pytest.raises(UserError, match=r"does not say with which .* --init-from .*old_run"):
            protocol.run(replace(new, init_from=copy), recipe="new", console=QUIET)
    finally:
        kept.write_text(said)


def test_a_final_fit_does_not_tell_the_next_run_its_targets(runs, tmp_path):
    """With nothing to learn, the next run tests the selected model, not the one to serve."""
    old, _, _ = runs
    first = replace(
        old,
        training=replace(old.training, epochs=5, evaluate_every=5),
        final_fit=True,
        workdir=str(tmp_path / "first"),
    )
    expected = protocol.run(first, recipe="first", console=QUIET)
    still = replace(
        first,
        optimizer=replace(old.optimizer, peak_lr=1e-12),
        training=replace(old.training, epochs=1, evaluate_every=1),
        workdir=str(tmp_path / "second"),
        init_from=first.workdir,
    )
    found = protocol.run(still, recipe="second", console=QUIET)
    assert found["data"]["test"] == expected["data"]["test"]
    before, after = (results["test"]["BERT4Rec"]["mrr"] for results in (expected, found))
    assert after == pytest.approx(before, abs=0.02)
    assert Path(first.workdir, "final").is_dir()


def test_targets_that_the_earlier_run_was_trained_on_are_not_asked(runs, tmp_path):
    """An earlier split by time was trained on the last events of users who left before its end."""
    old, _, _ = runs
    first = replace(
        old,
        data=replace(old.data, split="global-time"),
        training=replace(old.training, epochs=1, evaluate_every=1),
        workdir=str(tmp_path / "first"),
    )
    protocol.run(first, recipe="first", console=QUIET)
    data = replace(old.data, split="leave-one-out")
    second = replace(first, data=data, workdir=str(tmp_path / "second"), init_from=first.workdir)
    found = protocol.run(second, recipe="second", console=QUIET)["data"]
    for name in ("validation", "test"):
        assert found[name]["left_out"][WHY] > 0
        assert found[name]["cases"] > 0
    again = open_finished(Path(second.workdir), QUIET).setting.split
    assert len(again.validation) == found["validation"]["cases"]
    cold = replace(second, data=replace(data, split="cold-items"), workdir=str(tmp_path / "third"))
    with pytest.raises(UserError, match=r"trained on .* of the .* items that data.split cold"):
        protocol.run(cold, recipe="third", console=QUIET)


def test_another_model_or_content_is_one_clear_error(runs, tmp_path):
    _, new, _ = runs
    other = replace(new, workdir=str(tmp_path / "other"))
    for changed, message in (
        (
            replace(other, model=replace(other.model, dim=8)),
            r"trained another model:\n  model.dim: 16 -> 8\n",
        ),
        (replace(other, data=replace(other.data, content="")), "on content with other columns"),
        (
            replace(other, model=replace(other.model, thumbs=True)),
            r"trained another model:\n  model.thumbs: False -> True\n",
        ),
        (replace(other, init_from=str(tmp_path / "nothing")), "holds no checkpoint"),
        (replace(new, init_from=""), r"init_from: '.*old_run' -> ''"),
    ):
        with pytest.raises(UserError, match=message):
            protocol.run(changed, recipe="other", console=QUIET)


def test_other_thresholds_of_thumbs_are_one_clear_error(runs, tmp_path):
    old, _, _ = runs
    first = replace(
        old,
        data=replace(old.data, thumbs=(7.0, 9.0)),
        model=replace(old.model, thumbs=True),
        training=replace(old.training, epochs=1, evaluate_every=1),
        workdir=str(tmp_path / "first"),
    )
    protocol.run(first, recipe="first", console=QUIET)
    second = replace(first, workdir=str(tmp_path / "second"), init_from=first.workdir)
    changed = replace(second, data=replace(second.data, thumbs=(6.0, 9.0)))
    with pytest.raises(UserError, match=r"from 7 as thumbs up .* reads 6 and 9; .*--data.thumbs 7"):
        protocol.run(changed, recipe="second", console=QUIET)
    protocol.run(second, recipe="second", console=QUIET)


def test_content_from_a_folder_is_not_continued_by_titles_alone(runs, tmp_path):
    old, _, _ = runs
    log = SequenceStore.open(Path(old.data.path))
    build(log, tmp_path / "content", fitted=training_items(log))
    first = replace(
        old,
        data=replace(old.data, content=str(tmp_path / "content")),
        training=replace(old.training, epochs=1, evaluate_every=1),
        workdir=str(tmp_path / "first"),
    )
    protocol.run(first, recipe="first", console=QUIET)
    second = replace(
        first,
        data=replace(first.data, content="catalog"),
        workdir=str(tmp_path / "second"),
        init_from=first.workdir,
    )
    with pytest.raises(UserError, match=r"on the content in .*features \.\.\. --like .*content"):
        protocol.run(second, recipe="second", console=QUIET)


def test_an_earlier_run_that_the_final_fit_needs_is_asked_for_first(runs, tmp_path):
    old, new, _ = runs
    kept = shutil.move(old.workdir, tmp_path / "elsewhere")
    try:
        with pytest.raises(UserError, match=r"no run any more, and the final model .* --final-fit"):
            protocol.run(replace(new, final_fit=True), recipe="new", console=QUIET)
    finally:
        shutil.move(kept, old.workdir)


def test_what_an_attempt_took_over_that_came_to_nothing_is_found_anew(runs, tmp_path):
    """It left a folder of checkpoints without any, and what it had found in another run."""
    new = runs[1]
    again = replace(new, workdir=str(tmp_path / "again"))
    (tmp_path / "again" / "checkpoints").mkdir(parents=True)
    (tmp_path / "again" / "encoding.json").write_text("{}")
    wrong = SeenBefore(np.array([0]), np.array([0]))
    (tmp_path / "again" / "seen_before.json").write_text(json.dumps(wrong.to_json()))
    setting, before = (
        open_setting(again, QUIET), open_finished(Path(new.workdir), QUIET).setting,
    )  # fmt: skip
    assert setting.seen_before.to_json() == before.seen_before.to_json()
    assert setting.encoding == before.encoding
