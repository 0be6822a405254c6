"""Other ways to run `train.py`: splits, content, liked targets, and settings that cannot be."""

import numpy as np
import pytest
from sample import interactions
from test_end_to_end import TRAIN, command, results, run

from bert4rec_jax.data.store import write_store

pytestmark = pytest.mark.skipif(not TRAIN.is_file(), reason="train.py lies in the repository only")


def test_a_loss_that_is_not_finite_is_one_clear_error(store, environment, tmp_path):
    wild = {"optimizer__peak_lr": 1e30, "optimizer__clip_norm": 1e30, "optimizer__warmup_steps": 1}
    done = run(command(store, tmp_path / "run", **wild), environment)
    assert done.returncode == 2
    assert "at step" in done.stderr and "Lower optimizer.peak-lr" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_content_thumbs_and_liked_targets_together(store, environment, tmp_path):
    changes = {"data__content": "catalog", "data__targets": "liked", "training__epochs": 4,
               "training__evaluate_every": 2, "masking__objective": "mixed"}  # fmt: skip
    workdir = tmp_path / "run"
    arguments = [*command(store, workdir, **changes), "--model.thumbs"]
    titled = tmp_path / "titled"
    titles = {item: (f"Movie {item} (19{10 + int(item)})", "Drama") for item in map(str, range(40))}
    write_store(rewritten(store), titled, titles=titles, source=store.manifest["source"])
    done = run([*arguments, "--data.path", str(titled)], environment)
    assert done.returncode == 0, done.stderr
    found = results(workdir)
    assert found["data"]["split"] == "leave_one_out_liked"
    assert 0 < found["test"]["BERT4Rec"]["mrr"] < 1


def rewritten(store):
    """The interactions of a store."""
    users = np.repeat(np.arange(store.num_users), store.lengths)
    items = [store.catalog.item_id(token) for token in store.tokens]
    rows = list(zip(users, items, store.timestamps.tolist(), store.ratings.tolist()))
    return interactions(rows).in_time_order()


@pytest.mark.slow
def test_global_time_selects_refits_and_keeps_new_users_and_items_apart(
    store, environment, tmp_path
):
    workdir = tmp_path / "run"
    changes = {"data__split": "global-time", "training__epochs": 8, "training__evaluate_every": 4}
    done = run(command(store, workdir, **changes), environment)
    assert done.returncode == 0, done.stderr
    found = results(workdir)
    assert {"test", "test_first"} <= found.keys()
    assert (workdir / "refit" / "checkpoints").is_dir()
    assert found["steps"]["done"] == found["steps"]["best"] > 0
    again = run(command(store, workdir, **changes), environment)
    assert again.returncode == 0, again.stderr
    assert results(workdir)["test"] == found["test"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh__model": 3}, "mesh.model is 3, but it has to divide the 1 devices"),
        ({"data__path": "no/such/file"}, "no/such/file"),
    ],
)
def test_impossible_settings_get_one_clear_error(store, environment, tmp_path, changes, message):
    done = run(command(store, tmp_path / "run", **changes), environment)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.json").exists()
