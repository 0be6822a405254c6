"""Items that can be chosen again: asked for, trained on, listed and ranked like all others."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from sample import interactions

from bert4rec_jax.checks import ConfigError
from bert4rec_jax.config import (
    Config,
    DataConfig,
    EvaluationConfig,
    MaskingConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from bert4rec_jax.data.split import global_time, leave_one_out
from bert4rec_jax.data.store import write_store
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.own_history import OwnHistory
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.experiment.recipes import load as load_recipe
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.evaluation import rank_cases
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.export import export
from bert4rec_jax.serving.scorer import load

QUIET = Console(quiet=True)
USERS, ITEMS, LONG = 150, 24, 9


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Everyone goes round three songs of their own: a b c a b c a b c."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        own = generator.choice(ITEMS, 3, replace=False)
        rows += [(f"u{user}", f"s{own[n % 3]}", 100 * n + user % 7) for n in range(LONG)]
    log = interactions(rows).in_time_order()
    path = tmp_path_factory.mktemp("songs") / "store"
    return write_store(log, path, titles={}, source={"max_rating": None})


@pytest.fixture(scope="module")
def config(songs, tmp_path_factory):
    return Config(
        data=DataConfig(path=str(songs.path), max_length=LONG, repeats=True),
        model=ModelConfig(dim=32, heads=2, layers=1, ffn_dim=32, dropout=0.0, init_scale=0.2),
        masking=MaskingConfig(last_only=1.0),
        optimizer=OptimizerConfig(peak_lr=0.01, warmup_steps=5),
        training=TrainingConfig(epochs=30, batch_size=32, evaluate_every=15),
        evaluation=EvaluationConfig(batch_size=64, bootstrap=100),
        workdir=str(tmp_path_factory.mktemp("repeats") / "run"),
    )


@pytest.fixture(scope="module")
def run(config):
    return protocol.run(config, recipe="repeats", console=QUIET)


@pytest.fixture(scope="module")
def bundle(run, config, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "songs"
    export(config.workdir, path)
    return path


def test_targets_of_the_history_are_asked_only_with_repeats(songs):
    for split in (leave_one_out(songs), global_time(songs, quantile=0.6)):
        assert len(split.validation) == 0
        assert split.validation.dropped["target already in the history"] == USERS
    for split in (
        leave_one_out(songs, repeats=True),
        global_time(songs, quantile=0.6, repeats=True),
    ):
        assert len(split.validation) == len(split.test["test"]) == USERS
        assert not split.validation.dropped


def test_the_model_and_the_own_history_find_what_is_chosen_again(run):
    """The own songs are the three first of 24; which of them comes next, only the order tells."""
    test = run["test"]
    assert run["data"]["test"]["cases"] == USERS
    own, bert4rec = (test[name] for name in ("own-history", "BERT4Rec"))
    assert own["hr@5"] == 1.0
    assert own["hr@1"] < 0.2  # the last song is the one that never comes next
    assert bert4rec["hr@1"] > 0.6
    assert test["popular"]["hr@5"] < 0.5


def test_own_history_by_hand(songs):
    cases = leave_one_out(songs, repeats=True).test["test"][np.array([0])]
    (history,) = cases.histories(songs)
    a, b, c = history[:3]
    baseline = OwnHistory.fit(songs, songs.offsets[1:], decay=0.5)
    scores = baseline.scores(cases, songs)[0]
    # a b c a b c a b: from the back b 1, a .5, c .25, then an eighth of that, and so on.
    own = np.array([1, 0.5, 0.25]) * (1 + 1 / 8) + np.array([1, 0.5, 0]) / 64
    np.testing.assert_allclose(scores[[b, a, c]], own, atol=2e-4)
    others = np.setdiff1d(np.flatnonzero(songs.catalog.is_item()), history)
    counts = baseline.popular.counts
    np.testing.assert_allclose(scores[others], 1e-3 * counts[others] / counts.sum(), rtol=1e-5)


def test_the_exported_model_lists_and_ranks_as_it_was_tested(run, bundle, config, songs):
    scorer = load(bundle, batch_size=32)
    assert Bundle.open(bundle).repeats
    cases = leave_one_out(songs, repeats=True).test["test"]
    finished = open_finished(Path(config.workdir), QUIET)
    setting = finished.setting
    tested = setting.rank(finished.best.state.params, finished.trained, cases)
    np.testing.assert_array_equal(rank_cases(scorer, songs, cases), tested.ranks)
    history = [songs.catalog.item_id(int(t)) for t in next(cases.histories(songs))]
    listed = scorer.recommend(history, k=10).item_ids
    expected = [songs.catalog.item_id(int(t)) for t in tested.top[0]]
    assert list(listed) == expected[:10]
    assert set(listed) & set(history)
    assert not set(scorer.recommend(history, k=10, keep_seen=False).item_ids) & set(history)
    assert explain(scorer, history).item_id == listed[0]


def test_the_sampled_protocol_is_about_unseen_items(config):
    evaluation = replace(config.evaluation, sampled=True)
    with pytest.raises(ConfigError, match=r"evaluation\.sampled is True; expected False with"):
        replace(config, evaluation=evaluation)


def test_own_items_compete_in_training_where_they_can_be_chosen(config):
    recipe = load_recipe("general").config
    assert not recipe.own_items_compete
    assert replace(recipe, data=replace(recipe.data, repeats=True)).own_items_compete
    sampled = replace(config.training, in_batch_negatives=8)
    assert replace(config, training=sampled).own_items_compete
    unseen = replace(config.data, repeats=False)
    assert not replace(config, training=sampled, data=unseen).own_items_compete


def test_two_towers_and_pipelines(config, bundle, tmp_path):
    wanted = replace(
        config,
        model=replace(config.model, kind="two-tower", layers=0),
        masking=MaskingConfig(objective="next"),
        training=replace(config.training, epochs=10, evaluate_every=10, in_batch_negatives=64),
        evaluation=replace(config.evaluation, baselines=False),
        workdir=str(tmp_path / "towers"),
    )
    (found,) = protocol.run(wanted, recipe="repeats", console=QUIET)["test"].values()
    assert found["hr@5"] > 0.7  # chance is 5 of 24
    export(wanted.workdir, tmp_path / "bundle")
    retriever, ranker = Bundle.open(tmp_path / "bundle"), Bundle.open(bundle)
    assert ranker.behind(retriever, 5).retriever is retriever
    other = replace(retriever, manifest={**retriever.manifest, "repeats": False})
    with pytest.raises(
        UserError, match=r"was trained without --data\.repeats, the ranker .* with it"
    ):
        ranker.behind(other, 5)
