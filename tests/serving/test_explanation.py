"""Influence is the change of what the scorer itself says; attention is softmax(QK') by hand."""

import copy
import dataclasses
import json
import shutil
from functools import partial

import jax
import numpy as np
import pytest
from oracle import item_vectors

from bert4rec_jax.errors import UserError
from bert4rec_jax.models.history import History
from bert4rec_jax.models.sequence_model import SequenceModel
from bert4rec_jax.serving.explanation import both_sides, explain
from bert4rec_jax.serving.explanation_display import show_explanation
from bert4rec_jax.serving.filters import Filters
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.serving.traced import Serving, by_path

L = 6


@pytest.fixture(scope="module")
def ids(scorer):
    return scorer.catalog.item_ids


def score(scorer, history, item):
    """By the bundle's own `score` function."""
    return scorer.rank([history], [[item]], keep_seen=True)[0].scores[0]


def test_influence_is_what_leaving_out_changes(scorer, ids):
    history, item = ids[:4], ids[20]
    found = explain(scorer, history, item)
    whole = score(scorer, history, item)
    assert found.item_id == item and found.score == pytest.approx(whole, abs=1e-5)
    assert [influence.item_id for influence in found.influences] == list(history)
    for place, influence in enumerate(found.influences):
        without = [*history[:place], *history[place + 1 :]]
        assert influence.score == pytest.approx(whole - score(scorer, without, item), abs=1e-5)


def test_probabilities_are_a_softmax_over_what_is_known(scorer, ids):
    every = scorer.rank([ids[:3]], [ids], keep_seen=True)[0]
    shares = np.exp(every.scores) / np.exp(every.scores).sum()
    found = explain(scorer, ids[:3], ids[9])
    assert found.probability == pytest.approx(shares[every.item_ids.index(ids[9])], rel=1e-4)
    without = scorer.rank([ids[1:3]], [ids], keep_seen=True)[0]
    other = np.exp(without.scores) / np.exp(without.scores).sum()
    change = np.log(found.probability) - np.log(other[without.item_ids.index(ids[9])])
    assert found.influences[0].log_probability == pytest.approx(change, abs=1e-4)


def test_the_first_recommendation_is_explained_unless_another_is_named(scorer, ids):
    listed = scorer.recommend(ids[:3], 5).item_ids
    found = explain(scorer, ids[:3])
    assert (found.item_id, found.rank) == (listed[0], 1)
    assert explain(scorer, ids[:3], listed[4]).rank == 5


def test_what_the_filters_leave_out_is_not_recommended(scorer, bundle, ids):
    listed = scorer.recommend(ids[:3], 5).item_ids
    filtered = load(bundle, filters=Filters(only=[*listed[2:], *ids[:3]]))
    found = explain(filtered, ids[:3])
    assert (found.item_id, found.rank, found.barred_by) == (listed[2], 1, None)
    barred = explain(filtered, ids[:3], listed[0])
    assert (barred.rank, barred.barred_by) == (1, "excluded")
    assert barred.probability == explain(scorer, ids[:3], listed[0]).probability
    guesses = both_sides(filtered, ids[:3], 1)
    for guess in (guesses.before, guesses.both):
        assert set(guess.likeliest.item_ids) == {*listed[2:], ids[1]}


def test_ids_may_be_whole_numbers_as_in_lists(scorer, ids):
    """The ids of this catalog are digits."""
    history, (first, second) = ids[:3], scorer.recommend(ids[:3], 2).item_ids
    numbers = np.array([int(item) for item in history])
    found, expected = explain(scorer, numbers, int(second)), explain(scorer, history, second)
    assert (found.item_id, found.influences) == (second, expected.influences)
    assert explain(scorer, history, exclude=[int(first)]).item_id == second
    assert both_sides(scorer, numbers, 1).both == both_sides(scorer, history, 1).both
    with pytest.raises(UserError, match="history is '0114709'; expected a list of item ids"):
        explain(scorer, "0114709")


class Labelled(list):
    """As a series of pandas whose labels are 2, 1, 0: brackets look up labels, not places."""

    def __getitem__(self, label):
        return list(self)[len(self) - 1 - label]


def test_the_hidden_item_is_told_by_its_place(scorer, ids):
    found = both_sides(scorer, Labelled(ids[:3]), 0)
    assert found.item_id == ids[0] and found.both == both_sides(scorer, ids[:3], 0).both


def test_movies_that_the_model_does_not_know_are_not_read(rare, ids):
    mixed = [ids[10], ids[0], ids[11], ids[1]]
    found, plain = (explain(rare, history, ids[20]) for history in (mixed, [ids[10], ids[11]]))
    assert [influence.read for influence in found.influences] == [True, False, True, False]
    assert (found.score, found.rank) == (pytest.approx(plain.score), plain.rank)
    assert found.influences[2].score == pytest.approx(plain.influences[1].score)
    assert found.influences[1].score == found.influences[3].score == 0
    np.testing.assert_allclose(found.attention, plain.attention, rtol=1e-6)
    hidden, other = both_sides(rare, mixed, 2), both_sides(rare, [ids[10], ids[11]], 1)
    assert hidden.both.probability == pytest.approx(other.both.probability)
    with pytest.raises(UserError, match="no item of the history has a training event"):
        explain(rare, ids[:3], ids[20])


def test_movies_before_the_window_have_no_influence_but_move_into_it(scorer, ids):
    history, item = ids[:8], ids[20]  # the model reads the last five
    found = explain(scorer, history, item)
    assert [influence.read for influence in found.influences] == [False] * 3 + [True] * 5
    assert {influence.score for influence in found.influences[:3]} == {0.0}
    without = score(scorer, [*history[:4], *history[5:]], item)
    expected = score(scorer, history, item) - without
    assert found.influences[4].score == pytest.approx(expected, abs=1e-5)
    assert found.attention.shape == (1, 2, L)


@pytest.mark.parametrize("reads", ["masked", "causal"])
def test_attention_by_hand(reads, trained, scorer, causal, ids):
    """One layer: softmax of the query at the last column against the keys of all columns."""
    trained, scorer = (trained, scorer) if reads == "masked" else causal
    found = explain(scorer, ids[:3])
    tokens = [2, 3, 4] if reads == "causal" else [2, 3, 4, 1]
    params = trained.variables["params"]
    h = np.asarray(item_vectors(trained)[0])[tokens]
    positions = slice(L - 4, L - 4 + len(tokens))  # the last one is that of the next movie
    h = h + params["position_embedding"][positions] + params["thumb_embedding"][0]
    h = (h - h.mean(1, keepdims=True)) / np.sqrt(h.var(1, keepdims=True) + 1e-12)
    h = h * params["input_norm"]["scale"] + params["input_norm"]["bias"]
    layer = params["transformer_0"]["attention"]

    def project(name):
        return np.einsum("LD,DHK->LHK", h, layer[name]["kernel"]) + layer[name]["bias"]

    logits = np.einsum("HK,LHK->HL", project("query")[-1], project("key")) / np.sqrt(4)
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found.reads_mask == (reads == "masked")
    np.testing.assert_allclose(found.attention, expected[None], atol=1e-5)


@pytest.mark.parametrize("reads", ["masked", "causal"])
def test_what_attends_is_what_is_ranked_by(reads, scorer, causal, ids):
    scorer = scorer if reads == "masked" else causal[1]
    tokens = [scorer.catalog.token(item) for item in ids[:3]]
    found, _ = scorer.ranker.functions.attend(
        np.array([[*tokens, 1]], np.int32), np.zeros((1, 4), np.int8),
        np.array([[3 - (reads == "causal")]], np.int32),
    )  # fmt: skip
    expected = scorer.user_vectors([ids[:3]])
    np.testing.assert_allclose(np.asarray(found)[:1], expected, atol=1e-6)


def test_attention_of_every_layer_sums_to_one_and_skips_padding(trained, ids):
    """Two layers: the first has queries everywhere, the last at the slot only."""
    model = trained.model.clone(layers=2)
    rows = np.array([[5, 6, 1, 0, 0]], np.int32)
    slots = np.array([[2]], np.int32)
    history = History(rows, 0 * rows, 0 * rows, (rows > 0).astype(np.int32), rows < 0)
    init = jax.jit(partial(model.init, deterministic=True))
    params = by_path(init(jax.random.key(0), history, slots))
    serving = Serving(model, L, causal=False)
    hidden, weights = jax.jit(serving.attend)(params, rows, np.zeros_like(rows), slots)
    assert weights.shape == (1, 2, 2, 5)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    assert (np.asarray(weights)[..., 3:] == 0).all() and (np.asarray(weights)[..., :3] > 0).all()
    expected = jax.jit(serving.encode)(params, rows[:, :2], np.zeros((1, 2), np.int8))
    np.testing.assert_allclose(hidden, expected, atol=1e-6)
    # From the slot, the first layer looks where it does as the only one.
    alone = jax.jit(Serving(trained.model, L, causal=False).attend)
    first = alone(params, rows, np.zeros_like(rows), slots)[1]
    np.testing.assert_allclose(weights[:, :1], first, atol=1e-6)


class Mean(SequenceModel):
    """The mean of a history's items: no attention, but something else that is kept on request."""

    def setup(self):
        self.item_table = self._new_table()

    def __call__(self, history, slots, *, deterministic):
        vectors, bias = self.item_table(deterministic=deterministic)
        mean = vectors[history.tokens].mean(axis=1, keepdims=True)
        self.sow("intermediates", "mean", mean)
        return mean, vectors, bias


def test_a_model_without_attention_has_none_to_show(trained):
    fields = {f.name: getattr(trained.model, f.name) for f in dataclasses.fields(SequenceModel)
              if f.name not in ("parent", "name")}  # fmt: skip
    model = Mean(**fields)
    rows, slots = np.array([[5, 6, 1]], np.int32), np.array([[2]], np.int32)
    history = History(rows, 0 * rows, 0 * rows, (rows > 0).astype(np.int32), rows < 0)
    variables = model.init(jax.random.key(0), history, slots, deterministic=True)
    params = by_path(jax.device_get(variables))
    hidden, weights = Serving(model, L, causal=False).attend(params, rows, 0 * rows, slots)
    assert hidden.shape == (1, model.dim) and weights.shape == (1, 0, model.heads, 3)


def test_a_guess_from_before_is_a_recommendation(scorer, ids):
    history = ids[:5]
    found = both_sides(scorer, history, 2, k=3)
    assert found.item_id == ids[2]
    others = [*ids[3:5]]
    expected = scorer.recommend(ids[:2], 3, exclude=others)
    assert found.before.likeliest.item_ids == expected.item_ids
    np.testing.assert_allclose(found.before.likeliest.scores, expected.scores, atol=1e-5)
    assert found.both.likeliest.scores != found.before.likeliest.scores
    assert found.both.probability != found.before.probability


def test_at_the_end_both_sides_are_one(scorer, ids):
    found = both_sides(scorer, ids[:4], 3)
    assert found.both.rank == found.before.rank
    assert found.both.probability == pytest.approx(found.before.probability, rel=1e-4)
    assert found.both.likeliest.item_ids == found.before.likeliest.item_ids


def test_thumbs_count(scorer, ids):
    liked = explain(scorer, ids[:3], ids[9], ratings=[10.0, float("nan"), 1.0])
    assert liked.score == pytest.approx(
        scorer.rank([ids[:3]], [[ids[9]]], ratings=[[10.0, float("nan"), 1.0]])[0].scores[0],
        abs=1e-5,
    )
    assert liked.score != explain(scorer, ids[:3], ids[9]).score


def test_questions_that_cannot_be_meant(scorer, causal, rare, ids):
    for ask, message in (
        (lambda: explain(scorer, []), "the history is empty; name at least one"),
        (lambda: explain(scorer, ["x"]), "item 'x' is not among the 40 items"),
        (lambda: explain(scorer, ids[:2], "x"), "item 'x' is not among the 40 items"),
        (lambda: explain(scorer, ids[:2], ratings=[1.0]), "1 ratings for 2 items"),
        (lambda: explain(rare, ids[9:12], ids[0]), "has no training event"),
        (lambda: explain(scorer, ids), "no item is left to recommend"),
        (lambda: both_sides(causal[1], ids[:3], 1), "reads a history from the left only"),
        (lambda: both_sides(scorer, ids[:9], 2), "expected 3 to 8, as the model reads the last 6"),
        (lambda: both_sides(scorer, ids[:3], 3), "expected 0 to 2, as the history has 3 items"),
        (lambda: both_sides(scorer, ids[:9], 4.0), "place is 4.0; expected a whole number"),
        (lambda: both_sides(scorer, ids[:9], 4, -1), "k is -1; expected a whole number, at least"),
    ):
        with pytest.raises(UserError, match=message):
            ask()


def test_a_bundle_of_an_earlier_version_says_so(bundle, tmp_path, ids):
    old = shutil.copytree(bundle, tmp_path / "old")
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["functions"]["attend"], manifest["checksums"]["attend.stablehlo"]
    (old / "attend.stablehlo").unlink()
    (old / "manifest.json").write_text(json.dumps(manifest))
    scorer = load(old)
    assert len(scorer.recommend(ids[:2], 3)) == 3
    with pytest.raises(UserError, match=r"has no function 'attend': .* export it again"):
        explain(scorer, ids[:2])


def test_a_movie_that_may_not_be_listed_takes_no_place(scorer, ids):
    first, second = scorer.recommend(ids[:3], 2).item_ids
    found = explain(scorer, ids[:3], second, exclude=[first, "not in the catalog"])
    assert found.rank == 1 and explain(scorer, ids[:3], second).rank == 2
    assert explain(scorer, ids[:3], exclude=[first]).item_id == second


def test_a_movie_that_is_never_recommended_has_no_place(bundle, scorer, ids, capsys):
    found = explain(scorer, ids[:3], ids[1])
    others = scorer.rank([ids[:3]], [ids], keep_seen=True)[0]
    listed = [i for i in others.item_ids if i == ids[1] or i not in ids[:3]]
    assert found.rank == 1 + listed.index(ids[1])  # that which it would have
    assert found.place == f"in the history, so not recommended (else place {found.rank})"
    excluded = explain(scorer, ids[:3], ids[9], exclude=[ids[9]])
    assert excluded.place == f"excluded, so not recommended (else place {excluded.rank})"
    assert explain(scorer, ids[:3]).place == "place 1"
    repeats = {**scorer.bundle.manifest, "repeats": True}
    again = copy.copy(scorer)
    again.bundle = dataclasses.replace(scorer.bundle, manifest=repeats)
    assert explain(again, ids[:3], ids[1]).place.startswith("place ")
    show_explanation(bundle, ids[:3], ids[1], None, None)
    assert f"why {ids[1]}: in the history, so not recommended" in capsys.readouterr().out


def test_of_several_times_that_a_movie_was_seen_the_last_is_hidden(bundle, ids, capsys):
    history = [ids[0], *ids[1 : L + 2], ids[0], ids[L + 3]]
    show_explanation(bundle, history, None, ids[0], None)
    assert "hidden:" in capsys.readouterr().out
    with pytest.raises(UserError, match=rf"'{ids[1]}' is not among the last {L} items"):
        show_explanation(bundle, history, None, ids[1], None)
    assert not capsys.readouterr().out


def test_a_hidden_movie_that_was_seen_twice_may_be_guessed(scorer, ids):
    for hidden in ids[5:25]:
        found = both_sides(scorer, [ids[0], hidden, ids[1], hidden], 3, len(ids))
        for guess in (found.before, found.both):
            assert guess.likeliest.item_ids.index(hidden) == guess.rank - 1
