"""Two stages: what they list, what they refuse, and that one bundle of both is the same."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import plain
from rich.console import Console
from test_commands import bert4rec, cells, no_memory_settings  # noqa: F401

from bert4rec_jax.config import MaskingConfig
from bert4rec_jax.data.catalog import Catalog
from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.errors import UserError
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.features.sources import Sources
from bert4rec_jax.serving.add_items import add_items
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.evaluation import exported, rank_cases, two_stage_ranks
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.export import write_bundle
from bert4rec_jax.serving.filters import Filters
from bert4rec_jax.serving.pipeline import joined, write_pipeline
from bert4rec_jax.serving.ranking import Ranker
from bert4rec_jax.serving.retrieval import Nearby, Scan
from bert4rec_jax.serving.scorer import Scorer, load
from bert4rec_jax.serving.traced import as_read
from bert4rec_jax.training.parts import build_model

ONE = jax.devices()[:1]


@pytest.fixture(scope="module")
def retriever(towers):
    """The folder of a bundle that orders items otherwise than the ranker."""
    return towers[1].bundle.path


@pytest.fixture(scope="module")
def stages(retriever, bundle):
    """From a number of candidates to a scorer."""
    finder, ranker = Bundle.open(retriever), Bundle.open(bundle)
    return lambda candidates, filters=Filters(), blend=0.0: Scorer(  # noqa: B008
        ranker.behind(finder, candidates, blend=blend),
        batch_size=16, devices=ONE, filters=filters,
    )  # fmt: skip


def test_with_all_items_as_candidates_it_is_the_ranker(stages, scorer, histories):
    every = len(scorer.catalog)
    found = stages(every).recommend_batch(histories, k=every)
    expected = scorer.recommend_batch(histories, k=every)
    for ours, theirs in zip(found, expected):
        assert ours.item_ids == theirs.item_ids
        np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5, atol=1e-6)


def test_it_orders_the_best_of_the_retriever(stages, scorer, towers, histories):
    few = stages(5)
    found = towers[1].recommend_batch(histories, k=5)
    expected = scorer.rank(histories, [answer.item_ids for answer in found])
    answers = few.recommend_batch(histories, k=5)
    assert plain(answers) == plain(expected)
    assert plain(answers) != plain(found), "the two models agree on everything"
    assert plain(few.recommend_batch(histories, k=2)) != plain(
        [replace(a, item_ids=a.item_ids[:2]) for a in found]
    )


def test_a_blend_orders_by_the_weighted_sum_of_both_scores(stages, scorer, towers, histories):
    found = towers[1].recommend_batch(histories, k=9)
    ordered = scorer.rank(histories, [answer.item_ids for answer in found])
    answers = stages(9, blend=0.5).recommend_batch(histories, k=4)
    for ours, first, second in zip(answers, found, ordered):
        theirs = dict(zip(first.item_ids, first.scores))
        total = {i: x + 0.5 * theirs[i] for i, x in zip(second.item_ids, second.scores)}
        best = sorted(total, key=total.get, reverse=True)[:4]
        assert list(ours.item_ids) == best
        np.testing.assert_allclose(ours.scores, [total[i] for i in best], rtol=1e-5, atol=1e-6)
    assert plain(answers) != plain(stages(9).recommend_batch(histories, k=4))


@pytest.mark.parametrize("blend", [-0.1, float("nan"), float("inf")])
def test_a_blend_has_to_be_a_weight(stages, blend):
    with pytest.raises(UserError, match=f"blend is {blend}; expected at least 0"):
        stages(5, blend=blend)


def test_the_first_of_the_list_is_explained(stages, scorer, histories):
    """By the ranker, which would have listed others of the whole catalog first."""
    few, firsts = stages(2), []
    for history in histories[:8]:
        found = explain(few, history)
        assert found.item_id == few.recommend(history, k=1).item_ids[0]
        assert found.rank == explain(scorer, history, found.item_id).rank
        firsts.append(found.rank == 1)
    assert not all(firsts)


def test_the_first_of_the_list_is_explained_as_it_was_asked_for(stages, histories):
    few, ratings_matter = stages(5), False
    for history in histories[:8]:
        ratings = [1.0] * len(history)
        (first,) = few.recommend(history, 1, ratings=ratings).item_ids
        assert explain(few, history, ratings=ratings).item_id == first
        assert (
            explain(few, history, ratings=ratings, exclude=[first]).item_id
            == (few.recommend(history, 1, [first], ratings=ratings).item_ids[0])
        )
        ratings_matter |= few.recommend(history, 1).item_ids[0] != first
    assert ratings_matter


def test_what_the_ranker_cannot_score_takes_no_place(rare, towers, histories, tmp_path):
    ranker, finder = rare.bundle, towers[1].bundle
    unranked = set(finder.catalog.item_ids[:5])
    both = Scorer(ranker.behind(finder, 5), batch_size=16, devices=ONE)
    found = [answer.item_ids for answer in both.recommend_batch(histories, k=5)]
    assert all(len(ids) == 5 and not set(ids) & unranked for ids in found)
    alone = [answer.item_ids for answer in towers[1].recommend_batch(histories, k=5)]
    assert any(set(ids) & unranked for ids in alone)
    said = []
    for name, stages in (("ab", (ranker, finder)), ("ba", (finder, ranker))):
        first, second = (bundle.path for bundle in stages)
        write_pipeline(first, second, tmp_path / name, candidates=5, notify=said.append)
    title = finder.catalog.title(2)
    assert said == [
        f"5 items are never listed, such as {title}: the ranker can score them, the retriever "
        "cannot; train the retriever with content, or on the same events",
        f"5 items are never listed, such as {title}: the retriever can score them, the ranker "
        "cannot; train the ranker with content, or on the same events",
    ]


def test_given_candidates_are_cut_down_by_the_retriever(stages, scorer, towers, histories):
    given = [list(scorer.catalog.item_ids[::3])] * len(histories)
    found = towers[1].rank(histories, given, k=4)
    expected = scorer.rank(histories, [answer.item_ids for answer in found])
    assert plain(stages(4).rank(histories, given)) == plain(
        [replace(a, unknown=()) for a in expected]
    )


def test_seen_and_excluded_items_are_not_listed(stages, histories):
    two = stages(8)
    for history in histories[:10]:
        first = two.recommend(history, k=8).item_ids
        assert len(first) == 8 and not set(first) & set(history)
        rest = two.recommend(history, k=8, exclude=first).item_ids
        assert len(rest) == 8 and not set(rest) & {*first, *history}


def test_empty_histories_and_short_lists(stages, scorer, histories):
    assert len(stages(5).recommend([], k=5)) == 5
    every = list(scorer.catalog.item_ids)
    assert len(stages(5).recommend(every[:38], k=5)) == 2  # nothing stands in
    assert len(stages(5).recommend(every, k=5)) == 0


def test_the_page_shows_it_beside_its_stages(stages, scorer, towers):
    pytest.importorskip("starlette", reason="the extra demo is not installed")
    from starlette.testclient import TestClient

    from bert4rec_jax.explore.app import make_app
    from bert4rec_jax.explore.models import Models
    from bert4rec_jax.explore.state import Seen, State

    models = Models([("ranker", scorer), ("towers", towers[1]), ("both", stages(5))], 5)
    ids = scorer.catalog.item_ids
    expected = stages(5).recommend(ids[:2], k=5).item_ids
    query = [("seen", f"n:{ids[0]}"), ("seen", f"n:{ids[1]}"), ("why", f"2:{expected[0]}")]
    text = TestClient(make_app(models, ["testserver"])).get("/", params=query).text
    places = [text.index(f'value="why.2:{item}"') for item in expected]
    assert places == sorted(places)
    assert "Two towers find 5 candidates, BERT4Rec orders them" in text
    assert f"Why {expected[0]}, says both" in text and "what the ranker of the pipeline" in text
    state = State((Seen(ids[0]), Seen(ids[1])), (1, expected[0]))
    towers_say = models.why(state)  # these have no layer, so no heads
    assert not towers_say.has_attention and "attention of each" not in towers_say.drawn
    assert not towers_say.by_ranker


def test_longer_lists_than_candidates_are_refused(stages, histories):
    with pytest.raises(UserError, match="lists of 6 were asked for, but the retriever hands on 5"):
        stages(5).recommend(histories[0], k=6)


def test_filters_hold_in_both_stages(stages, scorer, histories, tmp_path):
    allowed = scorer.catalog.item_ids[:12]
    file = tmp_path / "now.txt"
    file.write_text("\n".join([*allowed, "not an item"]))
    two = stages(5, Filters(only=file))
    for history in histories[:10]:
        listed = two.recommend(history, k=5).item_ids
        assert set(listed) <= set(allowed) - set(history)
        assert len(listed) == min(5, len(set(allowed) - set(history)))


def test_one_bundle_holds_both(retriever, bundle, stages, histories, tmp_path):
    write_pipeline(retriever, bundle, tmp_path / "both", candidates=5)
    both = load(tmp_path / "both", batch_size=16, devices=ONE)
    expected = stages(5)
    assert plain(both.recommend_batch(histories, k=5)) == plain(
        expected.recommend_batch(histories, k=5)
    )
    assert both.bundle.fingerprint == expected.bundle.fingerprint
    assert both.bundle.fingerprint != stages(6).bundle.fingerprint
    assert both.bundle.fingerprint != stages(5, blend=0.5).bundle.fingerprint
    searched = Bundle.open(bundle).behind(Bundle.open(retriever), 5, probes=1)
    assert both.bundle.fingerprint != searched.fingerprint
    assert both.bundle.fingerprint != Bundle.open(bundle).fingerprint
    with joined(retriever, bundle, candidates=5) as folder:
        assert Bundle.open(folder).fingerprint == expected.bundle.fingerprint
    with pytest.raises(UserError, match="ranker behind a retriever; give single bundles"):
        write_pipeline(tmp_path / "both", bundle, tmp_path / "more", candidates=5)
    with pytest.raises(UserError, match="candidates is 0; expected at least 1"):
        write_pipeline(retriever, bundle, tmp_path / "more", candidates=0)
    (tmp_path / "both" / "retriever" / "params.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match="does not match its checksum"):
        load(tmp_path / "both")


@pytest.mark.slow
def test_small_bundles_are_stages_too(trained, causal, histories, tmp_path):
    write_bundle(causal[0], tmp_path / "first", dtype="bfloat16")
    write_bundle(trained, tmp_path / "second", dtype="int8")
    with joined(tmp_path / "first", tmp_path / "second", candidates=5) as folder:
        both = load(folder, batch_size=16, devices=ONE)
    first, second = (load(tmp_path / x, batch_size=16, devices=ONE) for x in ("first", "second"))
    found = [answer.item_ids for answer in first.recommend_batch(histories, k=5)]
    expected = second.rank(histories, found)
    assert plain(both.recommend_batch(histories, k=5)) == plain(expected)
    known = first.bundle.known
    nearby = first.bundle, 16, ONE, known
    asked = first.reader.read(pa.table({"user_id": ["a"], "history": histories[:1]}), str)
    for functions in (Scan(*nearby), Nearby(*nearby, probes=99)):
        lists = Ranker(functions, known, first.bundle).rank(asked, top=5)
        assert tuple(map(first.catalog.item_ids.__getitem__, lists.items.values - 2)) == found[0]


def test_each_stage_reads_ratings_by_its_own_thresholds(towers, trained, histories, tmp_path):
    strict = replace(towers[0], thumbs=(9.0, 9.5))  # to it, 8 is a thumb down
    write_bundle(strict, tmp_path / "first")
    write_bundle(trained, tmp_path / "second")
    first, second = (load(tmp_path / x, batch_size=16, devices=ONE) for x in ("first", "second"))
    assert first.bundle.thumbs != second.bundle.thumbs
    ratings = [[8.0] * len(history) for history in histories]
    found = [a.item_ids for a in first.recommend_batch(histories, k=5, ratings=ratings)]
    expected = second.rank(histories, found, ratings=ratings)
    with joined(tmp_path / "first", tmp_path / "second", candidates=5) as folder:
        both = load(folder, batch_size=16, devices=ONE)
        assert plain(both.recommend_batch(histories, k=5, ratings=ratings)) == plain(expected)
    loose = towers[1].recommend_batch(histories, k=5, ratings=ratings)
    assert found != [answer.item_ids for answer in loose]


def test_a_pipeline_is_tested_and_grown_by_its_parts(retriever, bundle, run, store, tmp_path):
    write_pipeline(retriever, bundle, tmp_path / "both", candidates=5)
    with pytest.raises(
        UserError,
        match=r"both is a pipeline.*its parts, .*both/retriever and .*ranker, each with the run",
    ):
        exported([tmp_path / "both"])
    with pytest.raises(UserError, match="both is a pipeline of two models; add the items to each"):
        add_items(tmp_path / "both", tmp_path / "more", sources=Sources(), ids=["a"])
    cases = leave_one_out(store).test["test"]
    part = tmp_path / "both" / "ranker"
    parts = exported([part])(open_finished(run, Console(quiet=True)))
    assert [*parts] == [str(part)]
    ranks = parts[str(part)](cases).ranks
    np.testing.assert_array_equal(ranks, rank_cases(load(bundle), store, cases))


@pytest.mark.slow
def test_towers_without_layers_are_a_bundle(trained, histories, tmp_path):
    config = replace(
        trained.config,
        model=replace(trained.config.model, kind="two-tower", layers=0),
        masking=MaskingConfig(objective="next"),
    )
    model = build_model(
        config.model, num_rows=trained.catalog.num_rows, max_length=config.data.max_length
    )
    row, slot = np.array([[2, 3]], np.int32), np.array([[1]], np.int32)
    variables = model.init(
        jax.random.key(0), as_read(row, 0 * row, max_length=6, causal=True), slot,
        deterministic=True,
    )  # fmt: skip
    towers = replace(
        trained, config=config, model=model, variables=jax.tree.map(np.asarray, variables)
    )
    write_bundle(towers, tmp_path / "towers", dtype="int8")
    scorer = load(tmp_path / "towers", batch_size=16, devices=ONE)
    found = explain(scorer, histories[0])
    assert found.attention.shape[:2] == (0, 2)
    assert found.score == pytest.approx(scorer.recommend(histories[0], k=1).scores[0], abs=1e-5)


def test_a_pipeline_does_not_replace_its_stages(retriever, bundle, tmp_path):
    ranker = shutil.copytree(bundle, tmp_path / "ranker")
    for place, where in ((".", "is"), ("new", "lies in")):
        with pytest.raises(UserError, match=f"{where} one of the two stages; choose another fo"):
            write_pipeline(retriever, ranker, ranker / place, candidates=4)
    assert Bundle.open(ranker).retriever is None


def test_numbers_of_numpy_make_a_pipeline(retriever, bundle, tmp_path):
    given = {"candidates": np.int64(5), "probes": np.int32(3), "blend": np.float32(0.5)}
    write_pipeline(retriever, bundle, tmp_path / "both", **given)
    opened = load(tmp_path / "both", devices=np.array(jax.devices())).bundle
    assert (opened.candidates, opened.probes, opened.blend) == (5, 3, 0.5)
    for name, wrong in (("candidates", 5.0), ("probes", "all"), ("candidates", None)):
        with pytest.raises(UserError, match=f"{name} is {wrong!r}; expected a whole number"):
            write_pipeline(retriever, bundle, tmp_path / "both", **{**given, name: wrong})
    with pytest.raises(UserError, match="blend is 'half'; expected a number"):
        write_pipeline(retriever, bundle, tmp_path / "both", **{**given, "blend": "half"})


def test_towers_of_another_catalog_are_refused(trained, bundle, tmp_path):
    catalog = trained.catalog
    other = Catalog(("x", *catalog.item_ids[1:]), catalog.titles, catalog.genres)
    write_bundle(replace(trained, catalog=other), tmp_path / "other")
    with pytest.raises(UserError, match=r"knows another catalog .* add new items to both"):
        write_pipeline(tmp_path / "other", bundle, tmp_path / "both", candidates=5)
    assert not (tmp_path / "both").exists()


def test_a_catalog_over_all_devices_gives_the_same_lists(towers, scorer, histories):
    bundle = towers[1].bundle
    reader, ranker = towers[1].reader, towers[1].ranker
    listed = bundle.known & (np.arange(len(bundle.known)) % 5 != 0)
    table = pa.table({"user_id": ["a"] * len(histories), "history": histories})
    requests = reader.read(table, str)
    expected = Ranker(type(ranker.functions)(bundle, 16, ONE, listed), listed, bundle).rank(
        requests, top=9
    )
    for devices in (jax.devices(), jax.devices()[:3]):  # 256 rows: 8 x 32, and 2 x 128
        over = Ranker(Scan(bundle, 16, devices, listed), listed, bundle)
        found = over.rank(requests, top=9)
        np.testing.assert_array_equal(found.items.values, expected.items.values)
        np.testing.assert_array_equal(found.items.offsets, expected.items.offsets)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
    everywhere = Ranker(Nearby(bundle, 16, ONE, listed, probes=99), listed, bundle)
    np.testing.assert_array_equal(
        everywhere.rank(requests, top=9).items.values, expected.items.values
    )


def test_ranks_by_number_of_candidates(stages, scorer, store):
    cases = leave_one_out(store).test["test"]
    every = stages(len(store.catalog))
    direct = rank_cases(scorer, store, cases)
    ranks = two_stage_ranks(every.answering, every, store, cases, (3, len(store.catalog)))
    np.testing.assert_array_equal(ranks[len(store.catalog)], direct)
    last = store.catalog.num_rows
    found = rank_cases(Scorer(every.bundle.retriever, batch_size=16, devices=ONE), store, cases)
    handed_on = found <= 3
    assert 0 < handed_on.sum() < len(cases)
    np.testing.assert_array_equal(ranks[3] < last, handed_on)
    assert (ranks[3][handed_on] <= np.minimum(direct[handed_on], 3)).all()


def test_commands(bert4rec, retriever, bundle, scorer, histories, tmp_path):  # noqa: F811
    both = tmp_path / "both"
    status, output, _ = bert4rec("pipeline", retriever, bundle, both, "--candidates", 5)
    assert status == 0 and "5 candidates" in output
    assert json.loads((both / "manifest.json").read_text())["stages"] == {
        "candidates": 5,
        "probes": 0,
        "blend": 0.0,
    }
    ids = scorer.catalog.item_ids
    shown = bert4rec("recommend", both, ids[0], "-k", 3)
    stages = ("--retriever", retriever, "--ranker", bundle, "--candidates", 5)
    again = bert4rec("recommend", ids[0], "-k", 3, *stages)
    assert shown == again and shown[0] == 0 and len(cells(shown[1])) == 3
    asked = pa.table({"user_id": ["a", "b"], "history": [histories[0], []]})
    pq.write_table(asked, tmp_path / "in.parquet")
    command = ("rank", "--requests", tmp_path / "in.parquet", "--output", tmp_path / "out")
    assert bert4rec(*command, *stages)[0] == 0
    lists = pq.read_table(tmp_path / "out")["item_ids"].to_pylist()
    assert [len(items) for items in lists] == [5, 5]
    status, output, _ = bert4rec("rank", both, *command[1:])
    assert status == 0, "the same job, already done"
    for wrong, message in (
        ((*command, "--ranker", bundle), "give one BUNDLE, or --retriever and --ranker"),
        (("rank", bundle, *command[1:], "--candidates", 9), "--candidates is for --retriever"),
        (("rank", bundle, *command[1:], "--blend", 1), "--blend is for --retriever"),
        ((*command, *stages, "--top", 6), "lists of 6 were asked for"),
        ((*command, *stages, "--genres", "Noir"), "no item has the genre 'Noir'"),
        ((*command[:-1], tmp_path / "new", *stages, "--top", 6), "lists of 6 were asked for"),
    ):
        status, _, errors = bert4rec(*wrong)
        assert status == 2 and message in errors and "Traceback" not in errors
    assert not list(tmp_path.glob("new*")), "refused before anything was written"
