"""Settings: what a run finds out about its items before it starts."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sample import interactions

from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    TrainingConfig,
    to_json,
)
from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.data.split import train_counts
from bert4rec_jax.data.store import write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import load_selected, open_finished
from bert4rec_jax.experiment.inputs import open_content, open_data
from bert4rec_jax.experiment.opening import open_setting
from bert4rec_jax.features.build import build
from bert4rec_jax.features.options import Options
from bert4rec_jax.features.sources import Sources


def store_of(path, titles):
    rows = [("u", "a", 0), ("u", "b", 1), ("u", "c", 2)]
    return write_store(interactions(rows).in_time_order(), path, titles=titles, source={})


@pytest.fixture
def said():
    return Console(file=io.StringIO(), width=200)


def test_data_that_changed_since_they_were_prepared_are_refused(tmp_path, said):
    store = store_of(tmp_path / "store", {})
    with (store.path / "tokens.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\x02\0\0\0")  # an item of the catalog, but another one
    with pytest.raises(UserError, match=r"tokens\.npy does not match its checksum .* prepare the"):
        open_data(DataConfig(path=str(store.path)), tmp_path / "run", said)


@pytest.mark.parametrize("name", ["a[bc]", "a*", "a?"])
def test_a_workdir_where_checkpoints_would_be_lost_is_refused(tmp_path, said, name):
    """Orbax looks for its parts by a pattern that begins with the path."""
    store = store_of(tmp_path / "store", {})
    config = Config(DataConfig(path=str(store.path)), workdir=str(tmp_path / name / "run"))
    with pytest.raises(UserError, match=r"one of the signs \* \? \[, .*; choose another --workdir"):
        protocol.run(config, console=said)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_items_are_known_by_what_came_with_their_titles(tmp_path, said):
    titles = {"a": ("A (1990)", "Drama|War"), "b": ("B (2000)", "Drama"), "c": ("c", "")}
    store = store_of(tmp_path / "store", titles)
    counts = np.ones(store.catalog.num_rows, int)
    content = open_content(DataConfig(content="catalog"), store, counts, said).matrix
    assert content.shape[0] == store.catalog.num_rows
    informed = np.flatnonzero((content != 0).any(1)).tolist()
    assert informed == [store.catalog.token("a"), store.catalog.token("b")]
    assert said.file.getvalue() == ""


def test_a_log_without_genres_and_years_is_known_by_ids(tmp_path, said):
    store = store_of(tmp_path / "store", {})
    counts = np.ones(store.catalog.num_rows, int)
    assert open_content(DataConfig(content="catalog"), store, counts, said) is None
    assert "in the model they are known by their ids alone" in said.file.getvalue()
    assert open_content(DataConfig(), store, counts, said) is None


@pytest.fixture
def over_time(tmp_path):
    """The setting of a split by time: 60 users and 40 items appear one after the other."""
    generator = np.random.default_rng(0)
    rows = [
        (user, min(max(user * 2 // 3 + int(generator.integers(-4, 5)), 0), 39), 10 * user + moment)
        for user in range(60)
        for moment in generator.permutation(30)[:8].tolist()
    ]
    rows = sorted({(user, item): (user, item, time) for user, item, time in rows}.values())
    titles = {str(item): (f"T{item} ({1960 + item})", f"Of {item // 4}") for item in range(40)}
    log = interactions(rows).in_time_order()
    store = write_store(log, tmp_path / "store", titles=titles, source={})
    config = Config(
        data=DataConfig(
            path=str(store.path), split="global-time", time_quantile=0.8, content="catalog",
            min_user_interactions=1, min_item_interactions=1,
        ),
        model=ModelConfig(dim=8, heads=2, layers=1, ffn_dim=8),
        workdir=str(tmp_path / "run"),
    )  # fmt: skip
    return open_setting(config, Console(quiet=True))


def test_content_is_fitted_on_what_selection_trains_on(over_time):
    """Not on items that are first seen when validation asks for them."""
    store, split = over_time.store, over_time.split
    items, later = (
        {store.catalog.genres_of(token)[0] for token in np.flatnonzero(train_counts(store, stop))}
        for stop in (split.train_stop, split.refit_stop)
    )
    assert items < later
    (genres,) = (x for x in over_time.encoding.encoder.blocks if x.name == "genres")
    assert set(genres.vocabulary.names) <= items
    years = over_time.encoding.encoder.blocks[-1].numbers[0].knots
    titles = [store.catalog.title(t) for t in np.flatnonzero(train_counts(store, split.train_stop))]
    assert max(years) == max(int(title[-5:-1]) for title in titles) + 0.5


def test_test_cases_of_new_users_and_items_are_apart(over_time):
    """New are those without an event in the training of the tested model, the refitted one."""
    store, split = over_time.store, over_time.split
    expected = {name: [] for name in ("test", "test_new_items", "test_new_users")}
    trained = {int(t) for a, b in zip(store.offsets, split.refit_stop) for t in store.tokens[a:b]}
    cases = split.test["test"]
    for user, row in zip(cases.users, cases.rows):
        kind = "test"
        if int(store.tokens[row]) not in trained:
            kind = "test_new_items"
        elif split.refit_stop[user] == store.offsets[user]:
            kind = "test_new_users"
        expected[kind].append(row)
    found = over_time.tested()
    assert all(expected.values())
    assert {name: found[name].rows.tolist() for name in expected} == expected


def test_validation_asks_for_items_that_selection_was_trained_on(over_time):
    """Others have an id that was never learned, even if the refitted model will learn it."""
    config = dataclasses.replace(
        over_time.config,
        training=TrainingConfig(epochs=1, evaluate_every=1, batch_size=16),
        evaluation=EvaluationConfig(baselines=False, test=False, bootstrap=100),
    )
    protocol.run(config, console=Console(quiet=True))
    workdir = Path(config.workdir)
    setting = open_finished(workdir, Console(quiet=True)).setting
    params, split = load_selected(setting, Console(quiet=True)).state.params, setting.split
    expected, refitted = (
        summary(setting.rank(params, setting.trained(stop), split.validation).ranks)["mrr"]
        for stop in (split.train_stop, split.refit_stop)
    )
    lines = [json.loads(line) for line in (workdir / "log.jsonl").read_text().splitlines()]
    (validation,) = (line["validation"] for line in lines if "validation" in line)
    assert validation["mrr"] == pytest.approx(expected, abs=1e-6)
    assert validation["mrr"] != pytest.approx(refitted, abs=1e-4)


def test_content_that_has_seen_what_is_held_out_is_refused(tmp_path, said):
    titles = {"a": ("A (1990)", "Drama|War"), "b": ("B (2000)", "Drama"), "c": ("C (1999)", "War")}
    store = store_of(tmp_path / "store", titles)
    counts = np.ones(store.catalog.num_rows, int)
    fitted = np.ones(3, bool)
    for split in ("leave-one-out", "cold-items"):
        build(store, tmp_path / split, fitted=fitted, options=Options(min_count=1),
              about={"split": split, "time_quantile": 0.9})  # fmt: skip
    for made, split in (("cold-items", "cold-items"), ("cold-items", "leave-one-out")):
        config = DataConfig(content=str(tmp_path / made), split=split)
        assert open_content(config, store, counts, said) is not None
    for split in ("cold-items", "global-time"):
        config = DataConfig(content=str(tmp_path / "leave-one-out"), split=split)
        with pytest.raises(UserError, match=f"make it for this split: .*--split {split}"):
            open_content(config, store, counts, said)
    build(store, tmp_path / "unsaid", fitted=fitted, options=Options(min_count=1))
    unsaid = DataConfig(content=str(tmp_path / "unsaid"))
    assert open_content(unsaid, store, counts, said) is not None
    with pytest.raises(UserError, match="does not say for which split it was fitted"):
        open_content(dataclasses.replace(unsaid, split="cold-items"), store, counts, said)


def test_minima_that_a_store_does_not_have_are_refused(tmp_path, said):
    rows = [("u", "a", 0), ("u", "b", 1), ("u", "c", 2)]
    source = {"min_user_interactions": 3, "min_item_interactions": 1}
    write_store(interactions(rows).in_time_order(), tmp_path / "store", titles={}, source=source)
    path = str(tmp_path / "store")
    for config in (DataConfig(path=path), DataConfig(path=path, min_user_interactions=3)):
        assert open_data(config, tmp_path / "run", said).num_users == 1
    advice = r"min_item_interactions is 7, but .* with 1; give --data\.min-item-interactions 1"
    with pytest.raises(UserError, match=advice):
        open_data(DataConfig(path=path, min_item_interactions=7), tmp_path / "run", said)
    followed = DataConfig(path=path, min_item_interactions=1)
    assert open_data(followed, tmp_path / "run", said).num_users == 1


def test_paths_are_kept_as_text(tmp_path):
    config = Config(data=DataConfig(path=tmp_path / "log"), workdir=tmp_path)
    assert json.loads(json.dumps(to_json(config)))["data"]["path"] == str(tmp_path / "log")


def test_few_cases_are_told(tmp_path, said):
    rows = [(f"user {u}", f"item {(u + t) % 9}", t) for u in range(9) for t in range(6)]
    write_store(interactions(rows).in_time_order(), tmp_path / "store", titles={}, source={})
    config = Config(
        data=DataConfig(path=str(tmp_path / "store"), max_length=6),
        model=ModelConfig(dim=8, layers=1, ffn_dim=8),
        training=TrainingConfig(epochs=1, batch_size=8),
        evaluation=EvaluationConfig(baselines=False, bootstrap=100),
        workdir=str(tmp_path / "run"),
    )
    protocol.run(config, recipe="few", console=said)
    shown = said.file.getvalue()
    assert "validation has only 9 cases" in shown and str(tmp_path / "store") in shown
    assert "<pad>" not in shown


def test_a_log_without_a_question_is_one_clear_error(tmp_path, said):
    """Everyone watched one movie again and again, so no target is new to its user."""
    rows = [("u", "a", 0), ("u", "a", 1), ("u", "a", 2), ("v", "a", 3)]
    write_store(interactions(rows).in_time_order(), tmp_path / "store", titles={}, source={})
    data = DataConfig(path=str(tmp_path / "store"))
    with pytest.raises(
        UserError, match=r"can be asked on validation: 1 .*already in the history .--data.repeats"
    ):
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


def tiny(path, workdir):
    """A run of one step."""
    return Config(
        data=DataConfig(path=str(path), max_length=8, min_user_interactions=1,
                        min_item_interactions=1),
        model=ModelConfig(dim=8, heads=2, layers=1, ffn_dim=8),
        training=TrainingConfig(epochs=1, batch_size=8, evaluate_every=1),
        evaluation=EvaluationConfig(batch_size=8, bootstrap=100, baselines=False),
        workdir=str(workdir),
    )  # fmt: skip


def write_log(path, items="abcde"):
    rows = [f"u{user},{item},{n}" for user in range(3) for n, item in enumerate(items)]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    return path


def test_a_finished_run_is_opened_with_the_data_that_it_kept(tmp_path, said):
    """Its log has grown since; to train on would be to continue on other data."""
    log = write_log(tmp_path / "log.csv")
    config = tiny(log, tmp_path / "run")
    protocol.run(config, console=said)
    write_log(log, "abcdefg")
    finished = open_finished(tmp_path / "run", said)
    assert len(finished.setting.store.catalog) == 5
    with pytest.raises(UserError, match=r"log\.csv has changed since the run in"):
        protocol.run(config, console=said)
    shutil.rmtree(tmp_path / "run" / "data")
    with pytest.raises(UserError, match=r"log\.csv has changed since the run in"):
        open_finished(tmp_path / "run", said)
    write_log(log)  # put back as it was
    assert open_finished(tmp_path / "run", said).best.step == finished.best.step


def test_a_run_whose_inputs_are_elsewhere_says_where_it_looked(tmp_path, said, monkeypatch):
    """Paths are kept as they were given."""
    monkeypatch.chdir(tmp_path)
    store_path = tmp_path / "store"
    prepare(write_log(tmp_path / "log.csv"), store_path, min_user_interactions=1,
            min_item_interactions=1)  # fmt: skip
    protocol.run(tiny("store", "run"), console=said)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=r"trained with data\.path store, which does not exist as s"
    ):
        open_finished(tmp_path / "run", said)
    monkeypatch.chdir(tmp_path)
    assert open_finished(tmp_path / "run", said).best.step >= 1


def test_a_run_goes_on_wherever_its_data_lies_now_but_not_on_other_data(tmp_path, said):
    """The data is told by its fingerprint, not by its path."""
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare(write_log(tmp_path / "log.csv"), tmp_path / "store", **minima)
    prepare(write_log(tmp_path / "more.csv", "abcdefg"), tmp_path / "other", **minima)
    run = tmp_path / "run"
    protocol.run(tiny(tmp_path / "store", run), console=said)
    (tmp_path / "store").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"if it was moved, run .* with --data\.path NEW_PLACE"):
        open_finished(run, said)
    protocol.run(tiny(tmp_path / "moved", run), console=said)
    assert open_finished(run, said).setting.config.data.path == str(tmp_path / "moved")
    with pytest.raises(
        UserError, match=r"match the checkpoints .*data\.path was '.*/store' and is"
    ):
        protocol.run(tiny(tmp_path / "other", run), console=said)
    with pytest.raises(UserError, match=r"on the log .*store, and .*more\.csv does not hold"):
        protocol.run(tiny(tmp_path / "more.csv", run), console=said)
    assert not (run / "data").exists()
    with pytest.raises(UserError, match=r"data\.content: '' -> 'catalog'"):
        config = tiny(tmp_path / "moved", run)
        data = dataclasses.replace(config.data, content="catalog")
        protocol.run(dataclasses.replace(config, data=data), console=said)


def test_a_log_that_was_moved_is_the_same_log(tmp_path, said):
    log, run = write_log(tmp_path / "log.csv"), tmp_path / "run"
    protocol.run(tiny(log, run), console=said)
    (tmp_path / "elsewhere").mkdir()
    moved = log.rename(tmp_path / "elsewhere" / "log.csv")
    renamed = moved.rename(tmp_path / "elsewhere" / "renamed.csv")
    with pytest.raises(UserError, match=r"log\.csv does not exist; .*run holds a run on the log"):
        protocol.run(tiny(moved, run), console=said)
    protocol.run(tiny(renamed, run), console=said)
    assert open_finished(run, said).setting.config.data.path == str(renamed)
    named = tiny("ml-1m", run)  # a data set, even if the log of the run has its name
    with pytest.raises(UserError, match=r"log\.csv, and ml-1m does not hold the same"):
        protocol.run(named, console=said)


def test_an_earlier_run_without_its_data_is_named(tmp_path, said):
    first, store = tiny(tmp_path / "store", tmp_path / "first"), tmp_path / "store"
    minima = {"min_user_interactions": 1, "min_item_interactions": 1}
    prepare(write_log(tmp_path / "log.csv"), store, **minima)
    protocol.run(first, console=said)
    prepare(write_log(tmp_path / "log.csv", "abcdef"), store, **minima)
    more = dataclasses.replace(
        first, workdir=str(tmp_path / "more"), init_from=str(tmp_path / "first")
    )
    with pytest.raises(UserError, match=r"cannot begin from .*first: the catalog does not match"):
        protocol.run(more, console=said)


def timed_store(path):
    """Users who watch z, a, b and c on four days; the first of the log is day 100."""
    rows = [(f"u{u}", item, (100 + u + t) * 86_400)
            for u in range(4) for t, item in enumerate("zabc")]  # fmt: skip
    return write_store(interactions(rows).in_time_order(), path, titles={}, source={})


@pytest.mark.parametrize("times", [True, False])
def test_releases_count_from_the_first_day_of_the_log(tmp_path, said, times):
    store = timed_store(tmp_path / "store")
    table = [{"item_id": "a", "release_date": "1950-06-01", "genres": "War"},
             {"item_id": "c", "release_date": "1970-05-01"}]  # fmt: skip
    (tmp_path / "films.jsonl").write_text("\n".join(map(json.dumps, table)))
    build(store, tmp_path / "content", fitted=np.ones(4, bool), options=Options(min_count=1),
          sources=Sources(metadata=tmp_path / "films.jsonl", id_column="item_id"))  # fmt: skip
    config = Config(
        data=DataConfig(path=str(store.path), content=str(tmp_path / "content"), max_length=4),
        model=ModelConfig(dim=8, layers=1, ffn_dim=8, times=times),
        workdir=str(tmp_path / "run"),
    )
    setting = open_setting(config, said)
    tokens = [store.catalog.token(item) for item in "abc"]
    # Of each user, z and a are for training, b for validation and c for the test.
    trained = setting.trained(setting.split.train_stop)
    if not times:
        assert trained.dates is None
        return
    assert trained.dates.first_day[tokens].tolist() == [100, 0, 120]
    assert trained.dates.until == 104 * 86_400
    on_all = setting.trained(store.offsets[1:])
    assert on_all.dates.first_day[tokens].tolist() == [100, 102, 120]
    assert on_all.dates.until == 106 * 86_400
    constants = setting.variables({"item_table": {}}, trained)["catalog"]["request_time"]
    np.testing.assert_array_equal(constants["first_day"], trained.dates.first_day)


def test_times_before_1970_are_refused(tmp_path, said):
    rows = [("u", item, place - 1) for place, item in enumerate("abc")]
    store = write_store(interactions(rows).in_time_order(), tmp_path / "s", titles={}, source={})
    data = DataConfig(path=str(store.path), max_length=4)
    model = ModelConfig(dim=8, layers=1, ffn_dim=8, times=True)
    config = Config(data=data, model=model, workdir=str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"model\.times is on, but .* has times before 1970"):
        open_setting(config, said)
