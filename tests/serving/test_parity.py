"""What is deployed is what was evaluated: the same scores, ranks, lists and metrics."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from oracle import evaluated, plain, scores_in_process

from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.metrics import summary
from bert4rec_jax.serving import ranking
from bert4rec_jax.serving.evaluation import rank_cases
from bert4rec_jax.serving.functions import Functions
from bert4rec_jax.serving.scorer import load


@pytest.fixture(scope="module", params=["masked", "causal", "towers", "rare_run"])
def served(request, trained, scorer):
    """A trained model and its scorer: each way to read a history, and one with unknown items."""
    if request.param == "masked":
        return trained, scorer
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def cases(store):
    return leave_one_out(store).test["test"]


@pytest.fixture(scope="module")
def expected(served, store, cases):
    """The evaluator's ranks and lists."""
    return evaluated(served[0], store, cases)


@pytest.fixture(scope="module")
def ratings(store, cases):
    """The ratings of the whole test histories."""
    return [store.ratings[a:b].tolist() for a, b in zip(store.offsets[cases.users], cases.rows)]


def test_scores_are_those_of_the_model(served, store, cases, histories, ratings):
    trained, scorer = served
    everything = list(store.catalog.item_ids)
    answers = scorer.rank(histories, [everything] * len(histories), ratings=ratings, keep_seen=True)
    expected = scores_in_process(trained, store, cases)
    for answer, row in zip(answers, expected):
        found = {store.catalog.token(item): s for item, s in zip(answer.item_ids, answer.scores)}
        assert found.keys() == set(np.flatnonzero(trained.known))
        tokens = np.array(sorted(found))
        np.testing.assert_allclose([found[t] for t in tokens], row[tokens], rtol=1e-5, atol=1e-5)


def test_lists_are_those_of_the_evaluator(served, store, histories, ratings, expected):
    ids = store.catalog.item_ids
    for answer, row in zip(served[1].recommend_batch(histories, ratings=ratings), expected.top):
        assert list(answer.item_ids) == [ids[token - 2] for token in row]


def test_ranks_through_the_bundle_are_those_of_the_evaluator(served, store, cases, expected):
    np.testing.assert_array_equal(rank_cases(served[1], store, cases), expected.ranks)


def test_metrics_through_the_bundle_are_those_of_the_run(run, scorer, store, cases):
    recorded = json.loads((run / "metrics.json").read_text())["test"]["BERT4Rec"]
    found = summary(rank_cases(scorer, store, cases))
    assert {name: round(value, 6) for name, value in found.items()}.items() <= recorded.items()
    assert scorer.bundle.manifest["metrics"]["test"] == recorded


def test_ranks_need_the_catalog_of_the_bundle(scorer, cases):
    other = SimpleNamespace(path="other", catalog=Catalog(("x",), ("x",), ("",)))
    with pytest.raises(UserError, match="other has another catalog than"):
        rank_cases(scorer, other, cases)


def same(found, expected):
    """The same items in the same order, and scores within rounding."""
    for one, other in zip(plain(found), plain(expected), strict=True):
        scores, others = one.pop("scores"), other.pop("scores")
        assert one == other
        np.testing.assert_allclose(scores, others, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 7])
def test_batch_size_changes_nothing(bundle, scorer, histories, size):
    expected = scorer.recommend_batch(histories)
    one = load(bundle, batch_size=size, devices=jax.devices()[:1])
    same(one.recommend_batch(histories), expected)
    same([scorer.recommend(history) for history in histories[:3]], expected[:3])


def test_any_number_of_devices_gives_the_same_bits(bundle, histories, monkeypatch):
    """Full batches go to the devices in turn, and each is computed as one device alone would."""
    asked = [history[-9:] for history in histories[:58]]  # of one width
    expected = load(bundle, batch_size=7, devices=jax.devices()[:1]).recommend_batch(asked)
    used = []

    def recorded(self, *arguments):
        found = top_k(self, *arguments)
        used.extend(found[0].devices())
        return found

    top_k = Functions.top_k
    monkeypatch.setattr(Functions, "top_k", recorded)
    assert load(bundle, batch_size=7).recommend_batch(asked) == expected
    assert used == [*jax.devices(), jax.devices()[0]]


def test_padding_changes_nothing(scorer, histories, monkeypatch):
    candidates = [[*history[::-1], "7", "9", "11"] for history in histories]
    expected = scorer.rank(histories, candidates, keep_seen=True)
    monkeypatch.setattr(ranking, "list_widths", lambda longest: [50])
    same(scorer.rank(histories, candidates, keep_seen=True), expected)


def test_long_lists_are_scored_in_pieces(scorer, histories, monkeypatch):
    candidates = [list(scorer.catalog.item_ids)] * len(histories)
    candidates[3] = []
    expected = scorer.rank(histories, candidates)
    monkeypatch.setattr(ranking, "LONGEST_CANDIDATES", 3)
    same(scorer.rank(histories, candidates), expected)


def test_the_whole_catalog_and_all_candidates_are_the_same_question(scorer, histories):
    everything = [list(scorer.catalog.item_ids)] * len(histories)
    same(scorer.rank(histories, everything, k=10), scorer.recommend_batch(histories, 10))


def test_only_the_last_items_are_read_but_all_are_seen(scorer, histories):
    history = max(histories, key=len)
    short = scorer.recommend(history[-5:], 40)
    answer = scorer.recommend(history, 40)
    kept = [item for item in short.item_ids if item not in history]
    assert list(answer.item_ids) == kept and len(kept) < len(short)
