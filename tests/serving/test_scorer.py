import json
import shutil

import jax
import numpy as np
import pytest
from oracle import item_vectors, plain

import bert4rec_jax
from bert4rec_jax.data.store import sha256
from bert4rec_jax.errors import UserError
from bert4rec_jax.serving.bundle import MANIFEST, PARAMETERS, Bundle
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.export import write_parameters
from bert4rec_jax.serving.filters import Filters
from bert4rec_jax.serving.scorer import Scorer, load


@pytest.fixture
def ids(scorer):
    return scorer.catalog.item_ids


class Frame(list):
    """As a data frame of pandas: its values are the names of its columns."""

    columns = property(list)


def test_the_package_loads_lazily(bundle, ids):
    scorer = bert4rec_jax.load(str(bundle))
    assert len(scorer.recommend(ids[:3], k=2)) == 2
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bert4rec_jax.no_such_name


def test_an_answer_has_titles_and_falling_scores(scorer, ids):
    answer = scorer.recommend(ids[:3], k=5)
    assert len(answer.item_ids) == len(answer.titles) == len(answer.scores) == 5
    assert list(answer.scores) == sorted(answer.scores, reverse=True)
    assert set(answer.item_ids) & set(ids[:3]) == set()
    assert answer.unknown == ()


def test_unknown_ids_are_named_and_change_nothing_else(scorer, ids):
    expected = scorer.rank([ids[:3]], [ids[5:9]])[0]
    found = scorer.rank([["x", *ids[:2], "y", ids[2]]], [["z", *ids[5:9], "x"]], exclude=[["w"]])[0]
    assert found.unknown == ("x", "y", "z", "w")
    assert found.item_ids == expected.item_ids and found.scores == expected.scores


def test_excluded_and_seen_items_are_not_listed(scorer, ids):
    history = ids[:3]
    assert set(scorer.recommend(history, 40).item_ids) == set(ids[3:])
    assert set(scorer.recommend(history, 40, exclude=ids[5:]).item_ids) == set(ids[3:5])
    kept = scorer.recommend(history, 40, exclude=ids[5:], keep_seen=True)
    assert set(kept.item_ids) == set(ids[:5])
    candidates = [ids[0], ids[4], ids[4], ids[9]]
    assert set(scorer.rank([history], [candidates])[0].item_ids) == {ids[4], ids[9]}
    assert set(scorer.rank([history], [candidates], exclude=[[ids[9]]])[0].item_ids) == {ids[4]}
    assert len(scorer.rank([history], [candidates], keep_seen=True)[0]) == 3


def test_lists_are_shorter_where_items_run_out(scorer, ids):
    everything = scorer.recommend(ids[:3], k=10_000)
    assert len(everything) == len(ids) - 3
    assert len(scorer.recommend(ids, k=5)) == 0
    assert plain(scorer.rank([ids[:3]] * 2, [[], ids[4:6]], k=1))[0]["item_ids"] == ()


def test_untrained_items_are_never_listed(rare, ids):
    assert set(rare.recommend([ids[10]], 40).item_ids) == set(ids[5:]) - {ids[10]}
    assert rare.rank([[ids[10]]], [ids[3:7]])[0].item_ids == tuple(
        item for item in rare.recommend([ids[10]], 40).item_ids if item in ids[5:7]
    )
    with pytest.raises(UserError, match="has no training event"):
        rare.similar(ids[0])
    assert set(rare.similar(ids[10], 40).item_ids) == set(ids[5:]) - {ids[10]}


def test_padding_and_untrained_items_have_no_score(rare):
    history = np.array([[10, 11]], np.int32)
    candidates = np.array([[0, 1, 2, 20]], np.int32)  # the first items had no training event
    scores = rare.ranker.functions.score(history, np.zeros((1, 2), np.int8), candidates)
    assert np.isneginf(np.asarray(scores)[0]).tolist() == [True, True, True, False]


def test_an_empty_history_is_answered(scorer, causal):
    assert len(scorer.recommend([], k=3)) == 3
    changed, left_to_right = causal
    found = left_to_right.recommend(["not an item"], k=40)  # nothing is left of it
    _, bias = item_vectors(changed)
    tokens = [left_to_right.catalog.token(item) for item in found.item_ids]
    np.testing.assert_allclose(found.scores, np.asarray(bias)[tokens], atol=1e-7)


def test_no_histories_no_answers(scorer):
    assert scorer.recommend_batch([]) == []
    assert scorer.rank([], []) == []


def filled(bundle, folder, value):
    """A scorer whose parameters are all the same."""
    shutil.copytree(bundle, folder, dirs_exist_ok=True)
    opened = Bundle.open(folder)
    params = {path: np.full_like(old, value) for path, old in opened.parameters().items()}
    write_parameters(params, folder / PARAMETERS)
    checksums = {**opened.manifest["checksums"], PARAMETERS: sha256(folder / PARAMETERS)}
    (folder / MANIFEST).write_text(json.dumps({**opened.manifest, "checksums": checksums}))
    return load(folder, batch_size=16)


def test_equal_scores_come_in_the_order_of_the_catalog(bundle, tmp_path, ids):
    scorer = filled(bundle, tmp_path, 0)
    assert scorer.recommend(ids[:3], 4).item_ids == ids[3:7]
    assert scorer.rank([ids[:3]], [[ids[9], ids[4], ids[7]]])[0].item_ids == (
        ids[4],
        ids[7],
        ids[9],
    )
    assert scorer.similar(ids[1], 3).item_ids == (ids[0], ids[2], ids[3])
    # But a rank is the evaluator's, by which ties count against an item.
    assert explain(scorer, ids[:3], ids[3]).rank == int(scorer.bundle.known.sum()) - 3


def test_a_score_that_is_not_a_number_is_an_error(bundle, tmp_path, ids):
    scorer = filled(bundle, tmp_path, np.nan)
    with pytest.raises(UserError, match="a score is NaN"):
        scorer.recommend(ids[:3])
    with pytest.raises(UserError, match="a score is NaN"):
        scorer.rank([ids[:3]], [ids[4:6]])


def test_whole_numbers_are_ids_too(scorer):
    assert scorer.recommend([3, np.int64(5)]) == scorer.recommend(["3", "5"])
    assert scorer.similar(3) == scorer.similar("3")


def test_vectors_give_the_scores_that_are_listed(scorer, ids):
    histories = [ids[:3], ids[4:9], []]
    items, users = scorer.item_vectors(), scorer.user_vectors(histories)
    scores = users @ items.vectors.T + items.biases
    for row, history in enumerate(histories):
        answer = scorer.rank([history], [list(items.item_ids)], keep_seen=True)[0]
        found = dict(zip(answer.item_ids, answer.scores))
        expected = dict(zip(items.item_ids, scores[row]))
        assert found == pytest.approx(expected, abs=1e-4)
    count, width = items.vectors.shape
    assert repr(items) == f"ItemVectors({count} items, {width} wide)"  # not a page of ids


def test_filters_hold_for_candidates_similar_items_and_vectors_too(bundle, tmp_path, ids):
    (tmp_path / "now.txt").write_text("\n".join(ids[:4]))
    filters = Filters(only=tmp_path / "now.txt")
    some = load(bundle, batch_size=16, devices=jax.devices()[:1], filters=filters)
    assert set(some.similar(ids[7], 10).item_ids) == set(some.item_vectors().item_ids)
    assert set(some.item_vectors().item_ids) == set(ids[:4])
    (answer,) = some.rank([ids[20:22]], [ids[:8]])
    assert set(answer.item_ids) == set(ids[:4])


def test_similar_is_the_cosine(scorer, trained, ids):
    table, _ = item_vectors(trained)
    table = np.asarray(table)
    one = table[scorer.catalog.token(ids[4])]
    answer = scorer.similar(ids[4], k=39)
    assert ids[4] not in answer.item_ids and len(answer) == 39
    for item, cosine in zip(answer.item_ids, answer.scores):
        other = table[scorer.catalog.token(item)]
        expected = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert cosine == pytest.approx(expected, abs=1e-5)
    assert list(answer.scores) == sorted(answer.scores, reverse=True)


def test_a_scorer_does_not_need_its_folder_any_more(bundle, tmp_path, ids):
    """It may be replaced by a newer one, and answers must not mix the two."""
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    scorer = load(folder, batch_size=16, devices=jax.devices()[:1])
    shutil.rmtree(folder)
    assert len(scorer.recommend(ids[:3], 4)) == 4
    assert len(scorer.rank([ids[:3]], [ids[5:8]])[0]) == 3


def test_ratings_become_thumbs(scorer, ids):
    """A missing rating is no thumb, equal thumbs are equal, and this model reads them."""
    missing = float("nan")
    unrated = scorer.recommend(ids[:2], 3)
    assert scorer.recommend(ids[:2], 3, ratings=[missing, missing]) == unrated
    liked = scorer.recommend(ids[:2], 3, ratings=[10.0, missing])
    assert liked.scores != unrated.scores
    assert scorer.recommend(ids[:2], 3, ratings=[9.0, missing]) == liked
    assert scorer.recommend(ids[:2], 3, ratings=[9, None]) == liked
    with pytest.raises(UserError, match=r"^history: 1 ratings for 2 items in history"):
        scorer.recommend(ids[:2], 3, ratings=[10.0])
    with pytest.raises(UserError, match=r"^histories\[1\]: 1 ratings for 2 items in history"):
        scorer.recommend_batch([[], ids[:2]], 3, ratings=[[], [10.0]])


def test_sets_are_lists_where_order_says_nothing(scorer, ids):
    assert scorer.recommend(ids[:1], exclude=set(ids[1:3])) == scorer.recommend(
        ids[:1], exclude=ids[1:3]
    )
    assert scorer.rank([ids[:1]], [set(ids[1:3])]) == scorer.rank([ids[:1]], [ids[1:3]])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda s: s.recommend(["1"], k=0), "k is 0; expected a whole number, at least 1"),
        (lambda s: s.recommend(["1"], k=2.5), "k is 2.5; expected a whole number"),
        (lambda s: s.recommend(["1"], k="3"), "k is '3'; expected a whole number"),
        (
            lambda s: s.recommend(["1"], ratings=["good"]),
            r"^ratings is \['good'\]; expected a list",
        ),
        (
            lambda s: s.recommend(["1"], ratings=[[1]]),
            r"^ratings is \[\[1\]\]; expected a list",
        ),
        (
            lambda s: s.recommend_batch([["1"]], ratings=[["good"]]),
            r"^ratings\[0\] is \['good'\]; expected a list",
        ),
        (lambda s: s.recommend(["\ud800"]), r"^history holds .* is not valid Unicode"),
        (lambda s: s.similar("1", k=-1), "k is -1"),
        (lambda s: s.similar("no such item"), "item 'no such item' is not among the 40 items"),
        (lambda s: s.recommend("1"), r"^history is '1'; expected a list of item ids"),
        (lambda s: s.recommend({"1", "2"}), r"^history is {'.*; expected a list of item ids"),
        (
            lambda s: s.recommend(["1"], ratings={"1": 5}),
            r"^ratings is \{'1': 5\}; expected a list",
        ),
        (lambda s: s.recommend(["1"], ratings={5}), r"^ratings is \{5\}; expected a list"),
        (lambda s: s.recommend(None), r"^history is None; expected a list of item ids"),
        (lambda s: s.recommend_batch([None]), r"^histories\[0\] is None; expected a list of it"),
        (lambda s: s.recommend(["1"], exclude="2"), r"^exclude is '2'; expected a list"),
        (lambda s: s.recommend({"1"}), r"^history is {'1'}, a set without order; expected a list"),
        (lambda s: s.recommend_batch({("1",)}), "^histories is .*, a set without order; expected"),
        (lambda s: explain(s, {"1", "2"}), "^history is .*, a set without order; expected a list"),
        (lambda s: s.recommend(Frame(["item"])), "^history is a table, .*; expected a list"),
        (lambda s: s.recommend(["1"], exclude=Frame(["item"])), "^exclude is a table, .*; exp"),
        (lambda s: s.recommend(np.array("1")), "^history is array.*; expected a list of item ids"),
        (
            lambda s: s.recommend(["1"], ratings={"1": 9}),
            r"^ratings is \{.1.: 9\}; expected a",
        ),
        (lambda s: s.recommend(["1"], ratings={9}), r"^ratings is \{9\}; expected a list"),
        (lambda s: s.recommend(["1"], keep_seen="no"), "keep_seen is of type str; expected True,"),
        (lambda s: load(s.bundle), "bundle is of type Bundle; expected the path of a file or fo"),
        (lambda s: load(s.bundle.path, devices="cpu"), "devices is 'cpu'; expected a list of dev"),
        (lambda s: load(s.bundle.path, devices=[]), r"devices is \[\]; expected one or more, such"),
        (lambda s: load(s.bundle.path, devices=jax.devices()[0]), "devices is .*; expected a list"),
        (lambda s: s.recommend_batch(None), "histories is None; expected one list of item ids per"),
        (lambda s: s.recommend_batch(x for x in [["1"]]), "histories is <generator .*; expected"),
        (lambda s: s.recommend_batch({"1": ["2"]}), "histories is {'1.*; expected one list of"),
        (lambda s: s.rank([["1"]], ["2"]), r"candidates\[0\] is '2'; expected a list"),
        (
            lambda s: s.recommend([7.0]),
            r"^history holds 7.0 of type float; item ids are texts",
        ),
        (lambda s: s.rank([["1"]], []), "0 lists of candidates for 1 histories"),
        (lambda s: s.rank([["1"]], [["2"]], ratings=5), "ratings is 5; expected one list of"),
        (lambda s: s.recommend_batch([["1"]], ratings=[]), "0 ratings for 1 histories"),
        (lambda s: s.recommend(["1", "2"], ratings="54"), "^ratings is '54'; expected a list"),
        (lambda s: s.recommend(["1"], ratings=[10**400]), r"^ratings is \[1000.*; expected a list"),
        (lambda s: s.recommend_batch([["1"]], users=5), "users is 5; expected the features of one"),
        (lambda s: Scorer(s.bundle, batch_size=0), "batch_size is 0"),
        (lambda s: Scorer(s.bundle, batch_size=2.5), "batch_size is 2.5; expected a whole number"),
    ],
)
def test_questions_that_cannot_be_meant(scorer, ask, message):
    with pytest.raises(UserError, match=message):
        ask(scorer)


def test_short_lists_of_all_lengths_are_two_programs(bundle):
    scorer = load(bundle, batch_size=16, devices=jax.devices()[:1])
    ids = scorer.catalog.item_ids
    programs = scorer.ranker.functions._functions["top_k"]
    longest = scorer.recommend(ids[:2], k=30).item_ids
    for k in (1, 5, 16, 17, 30):
        assert scorer.recommend(ids[:2], k=k).item_ids == longest[:k]
    assert programs._cache_size() == 2
