"""Settings: what a run finds out about its items before it starts."""

import io

import numpy as np
import pytest
from rich.console import Console
from sample import interactions

from bert4rec_jax.config import Config, DataConfig
from bert4rec_jax.data.store import write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.inputs import open_content
from bert4rec_jax.setting import open_setting


def store_of(path, titles):
    rows = [("u", "a", 0), ("u", "b", 1), ("u", "c", 2)]
    return write_store(interactions(rows).in_time_order(), path, titles=titles, source={})


@pytest.fixture
def said():
    return Console(file=io.StringIO(), width=200)


def test_items_are_known_by_what_came_with_their_titles(tmp_path, said):
    titles = {"a": ("A (1990)", "Drama|War"), "b": ("B (2000)", "Drama"), "c": ("c", "")}
    store = store_of(tmp_path / "store", titles)
    counts = np.ones(store.catalog.num_rows, int)
    content = open_content("catalog", store, counts, said).matrix
    assert content.shape[0] == store.catalog.num_rows
    informed = np.flatnonzero((content != 0).any(1)).tolist()
    assert informed == [store.catalog.token("a"), store.catalog.token("b")]
    assert said.file.getvalue() == ""


def test_a_log_without_genres_and_years_is_known_by_ids(tmp_path, said):
    store = store_of(tmp_path / "store", {})
    counts = np.ones(store.catalog.num_rows, int)
    assert open_content("catalog", store, counts, said) is None
    assert "known by their ids alone" in said.file.getvalue()
    assert open_content("", store, counts, said) is None


def test_a_log_without_a_question_is_one_clear_error(tmp_path, said):
    """Everyone watched one movie again and again, so no target is new to its user."""
    rows = [("u", "a", 0), ("u", "a", 1), ("u", "a", 2), ("v", "a", 3)]
    write_store(interactions(rows).in_time_order(), tmp_path / "store", titles={}, source={})
    data = DataConfig(path=str(tmp_path / "store"))
    with pytest.raises(UserError, match=r"can be asked on validation: 1 .*already in the history"):
        open_setting(Config(data=data, workdir=str(tmp_path / "run")), said)


def test_new_items_and_new_users_after_t_are_sets_of_their_own(tmp_path, said):
    # T = 8, the .7 quantile of 1 .. 9, 11, 11, 11. After it: d and e are new, and so is one user.
    timeline = {
        "early": [("a", 1), ("b", 2), ("c", 3)],
        "first": [("a", 4), ("b", 5), ("d", 9)],
        "second": [("a", 6), ("c", 7), ("b", 8), ("e", 11)],
        "new": [("a", 11), ("b", 11)],
    }
    rows = [(user, item, t) for user, events in timeline.items() for item, t in events]
    path = tmp_path / "store"
    store = write_store(interactions(rows).in_time_order(), path, titles={}, source={})
    data = DataConfig(path=str(path), split="global-time", time_quantile=0.7)
    sets = open_setting(Config(data=data, workdir=str(tmp_path / "run")), said).tested()
    users = store.user_ids()
    found = {name: [users[user] for user in cases.users] for name, cases in sets.items()}
    assert found["test"] == []
    assert found["test_new_items"] == ["first", "second"]
    assert found["test_new_users"] == ["new"]
