"""User features from the run to the list: exported, in requests, behind a ranker, on the command
line."""

import json
from dataclasses import replace

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from oracle import plain
from pyarrow import csv
from rich.console import Console

from bert4rec_jax.cli.recommend import facts
from bert4rec_jax.data.split import leave_one_out
from bert4rec_jax.errors import UserError
from bert4rec_jax.evaluation.evaluator import ScoringModel
from bert4rec_jax.experiment import protocol
from bert4rec_jax.experiment.finished import open_finished
from bert4rec_jax.serving.add_items import read_bundle
from bert4rec_jax.serving.bundle import Bundle
from bert4rec_jax.serving.display import show_recommendations
from bert4rec_jax.serving.evaluation import answer_cases, exported, rank_cases
from bert4rec_jax.serving.explanation import explain
from bert4rec_jax.serving.export import write_bundle
from bert4rec_jax.serving.job import rank_file
from bert4rec_jax.serving.pipeline import joined
from bert4rec_jax.serving.ranking import Ranker
from bert4rec_jax.serving.retrieval import Nearby, Scan
from bert4rec_jax.serving.scorer import load
from bert4rec_jax.serving.store_requests import request_file
from bert4rec_jax.serving.worker import Options

QUIET = Console(quiet=True)
L = 6  # positions of the model
FACTS = [
    {"gender": "F", "age": 61, "tags": ["a"]},
    {"gender": "M", "age": 20.0, "tags": ["b", "new"]},
    {"gender": "M", "age": None, "tags": []},
    {},
]


@pytest.fixture(scope="module")
def setting(run_with_users):
    return open_finished(run_with_users, QUIET).setting


@pytest.fixture(scope="module")
def served(with_users):
    return with_users


def test_ranks_through_the_bundle_are_those_of_the_evaluator(served, setting, store):
    trained, scorer = served
    cases = leave_one_out(store).test["test"]
    model = ScoringModel(
        trained.model, trained.variables, known=trained.known, max_length=L, causal=True
    )
    expected = setting.evaluator.rank_model(model, cases)
    found = answer_cases(scorer, store, cases, users=setting.known_users)
    np.testing.assert_array_equal(found.ranks, expected.ranks)
    np.testing.assert_array_equal(found.top, expected.top)
    nobody = replace(setting.evaluator, users=setting.users * 0 + setting.users[0])
    other = nobody.rank_model(model, cases)
    assert (other.ranks != found.ranks).any()
    with pytest.raises(UserError, match="reads gender, age, tags of users, encoded otherwise than"):
        rank_cases(scorer, store, cases)


@pytest.mark.slow
def test_evaluate_tests_bundles_as_well(served, run_with_users):
    _, scorer = served
    bundle = scorer.bundle.path
    found = protocol.evaluate(run_with_users, exported=exported([bundle]), console=QUIET)["test"]
    assert found[str(bundle)].keys() >= {"hr@10"} and "two towers" in found


def test_the_bundle_says_what_it_reads(served, towers):
    trained, scorer = served
    bundle = scorer.bundle
    assert bundle.user_encoding == trained.user_encoding
    assert read_bundle(bundle.path).user_encoding == trained.user_encoding
    for name, function in bundle.manifest["functions"].items():
        given = list(function["arguments"].items())
        if name != "item_vectors":
            assert given[-1] == ("users", f"float32[b,{trained.user_encoding.width}]")
    without = towers[1].bundle
    assert "user_encoding.json" not in without.manifest["checksums"]
    assert "users" not in json.dumps(without.manifest["functions"])
    assert without.user_encodings == ()


def test_what_is_not_known_is_missing(served, histories):
    scorer = served[1]
    asked = histories[:4]
    found = scorer.recommend_batch(asked, users=FACTS)
    nobody = scorer.recommend_batch(asked)
    assert plain(nobody) == plain(scorer.recommend_batch(asked, users=[{}] * 4))
    assert plain(nobody) == plain(scorer.recommend_batch(asked, users=[None] * 4))
    nothing = {"gender": None, "age": None, "tags": None}
    assert plain(nobody) == plain(scorer.recommend_batch(asked, users=[nothing] * 4))
    assert [one == other for one, other in zip(found, nobody)] == [False, False, False, True]
    alone = scorer.recommend(asked[1], user=FACTS[1])
    assert alone.item_ids == found[1].item_ids
    candidates = [list(scorer.catalog.item_ids)] * 4
    ranked = scorer.rank(asked, candidates, k=10, users=FACTS)
    assert [one.item_ids for one in ranked] == [one.item_ids for one in found]


@pytest.mark.parametrize("user", [None, FACTS[0], FACTS[2]])
def test_explanations_are_of_the_list_that_a_user_gets(served, histories, user):
    history, scorer = histories[0], served[1]
    found, best = explain(scorer, history, user=user), scorer.recommend(history, 1, user=user)
    assert found.item_id == best.item_ids[0]
    np.testing.assert_allclose(found.score, best.scores[0], rtol=1e-5)
    # Without its newest movie the same user gets this score.
    less = scorer.rank([history[:-1]], [[found.item_id]], users=user and [user])[0].scores[0]
    np.testing.assert_allclose(found.score - found.influences[-1].score, less, rtol=1e-4, atol=1e-4)


def test_explanations_refuse_facts_that_the_model_does_not_read(served, scorer, histories):
    with pytest.raises(UserError, match="reads gender, age, tags; leave out height"):
        explain(served[1], histories[0], user={"height": 3})
    with pytest.raises(UserError, match="reads nothing of users; leave out age"):
        explain(scorer, histories[0], user={"age": 3})


def test_features_may_be_numbers_of_numpy(served, histories):
    """As the rows of data frames hold them."""
    scorer = served[1]
    for age in (np.int64(35), np.float32(35)):
        found = scorer.recommend(histories[0], user={"age": age, "gender": np.str_("F")})
        assert found == scorer.recommend(histories[0], user={"age": 35, "gender": "F"})
    with pytest.raises(UserError, match=r"^user: the age .*inf.* is not valid"):
        scorer.recommend(histories[0], user={"age": np.float32("inf")})


def test_users_that_cannot_be_meant_are_refused(served, towers, histories):
    scorer, asked = served[1], histories[:1]
    with pytest.raises(UserError, match="2 users for 1 histories"):
        scorer.recommend_batch(asked, users=[{}, {}])
    with pytest.raises(UserError, match="reads gender, age, tags; leave out sex"):
        scorer.recommend(asked[0], user={"sex": "F"})
    with pytest.raises(UserError, match="reads nothing of users; leave out age"):
        towers[1].recommend(asked[0], user={"age": 3})
    with pytest.raises(UserError, match=r"^user: the age 'old' is not valid; expected a fini"):
        scorer.recommend(asked[0], user={"age": "old"})
    with pytest.raises(UserError, match=r"^user: the age 'old' is not valid; expected a fini"):
        explain(scorer, asked[0], user={"age": "old"})
    with pytest.raises(UserError, match=r"^users\[0\]: the age 'old' is not valid; expected a "):
        scorer.recommend_batch(asked, users=[{"age": "old"}])
    with pytest.raises(UserError, match=r"^user is \['age'\]; expected features by name, as {'age"):
        scorer.recommend(asked[0], user=["age"])
    with pytest.raises(UserError, match=r"^users\[0\] is {35: 'age'}; expected features by name"):
        scorer.recommend_batch(asked, users=[{35: "age"}])
    with pytest.raises(UserError, match=r"^user: the gender \['F', 'M'\] is not valid"):
        scorer.recommend(asked[0], user={"gender": ["F", "M"]})


def requests_of(histories, **columns):
    ids = [f"r{i}" for i in range(len(histories))]
    return pa.table({"user_id": ids, "history": histories, **columns})


def rows_of(folder):
    return pq.read_table(sorted(folder.glob("*.parquet")))["item_ids"].to_pylist()


def test_requests_name_columns_of_the_table(served, histories, tmp_path):
    scorer, asked = served[1], histories[:4]
    columns = {
        "age": [f.get("age") for f in FACTS],
        "tags": [f.get("tags") for f in FACTS],
        "gender": pa.array([f.get("gender") for f in FACTS]).dictionary_encode(),
        "city": ["x"] * 4,
    }
    pq.write_table(requests_of(asked, **columns), tmp_path / "in.parquet")
    options = Options(top=10, batch_size=16, shard_rows=3)
    rank_file(scorer.bundle.path, tmp_path / "in.parquet", tmp_path / "out", options)
    expected = scorer.recommend_batch(asked, users=FACTS)
    assert rows_of(tmp_path / "out") == [list(answer.item_ids) for answer in expected]
    pq.write_table(requests_of(asked), tmp_path / "in.parquet")
    rank_file(scorer.bundle.path, tmp_path / "in.parquet", tmp_path / "plain", options)
    expected = scorer.recommend_batch(asked)
    assert rows_of(tmp_path / "plain") == [list(answer.item_ids) for answer in expected]
    pq.write_table(requests_of(asked, age=["1", "2", "old", "3"]), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"in.parquet, row 2: the age 'old' is not valid"):
        rank_file(scorer.bundle.path, tmp_path / "in.parquet", tmp_path / "bad", options)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_users_of_a_prepared_log_get_their_features_from_a_table(
    served, run_with_users, store, tmp_path, suffix
):
    scorer = served[1]
    config = json.loads((run_with_users / "metrics.json").read_text())["config"]
    table = pq.read_table(config["data"]["users"]).drop_columns("tags")  # lists need Parquet
    write = pq.write_table if suffix == "parquet" else csv.write_csv
    write(table, tmp_path / f"users.{suffix}")
    options = Options(top=10, batch_size=16)
    told = []
    rank_file(
        scorer.bundle.path,
        store.path,
        tmp_path / "out",
        options,
        users=str(tmp_path / f"users.{suffix}"),
        notify=told.append,
    )
    assert told == [
        "the requests have no column tags: the model reads these user features, and takes them as "
        "missing for all users"
    ]
    facts = {row.pop("user_id"): row for row in table.to_pylist()}
    histories = [
        [store.catalog.item_id(token) for token in store.tokens[start:stop]]
        for start, stop in zip(store.offsets[:-1], store.offsets[1:])
    ]
    users = [facts.get(user, {}) for user in store.user_ids()]
    expected = scorer.recommend_batch(histories, users=users)
    assert rows_of(tmp_path / "out") == [list(answer.item_ids) for answer in expected]


def test_tables_of_users_that_cannot_be_used_are_refused(store, tmp_path):
    (tmp_path / "users.csv").write_text("user_id,age\nnobody,3\n")
    with (
        pytest.raises(UserError, match=r"none of its users .such as 'nobody'. is in the log"),
        request_file(store.path, tmp_path / "users.csv"),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"users.csv adds features to the users of a folder made by"),
        request_file(tmp_path / "requests.jsonl", tmp_path / "users.csv"),
    ):
        pass


def test_a_retriever_hears_of_users_behind_any_ranker(served, bundle, histories):
    retriever = served[1]
    with joined(retriever.bundle.path, bundle, candidates=5, blend=0.5) as folder:
        both = load(folder, batch_size=16, devices=jax.devices()[:1])
        found = both.recommend_batch(histories[:4], 5, users=FACTS)
        candidates = retriever.recommend_batch(histories[:4], 5, users=FACTS)
        assert [set(x.item_ids) for x in found] == [set(x.item_ids) for x in candidates]
        ranked = both.ranker.functions
        assert ranked.user_encoding is None and both.reader.user_columns == (
            "gender",
            "age",
            "tags",
        )
        assert plain(found[:3]) != plain(both.recommend_batch(histories[:3], 5))
        # The ranker reads nothing of users, so it is the retriever that a message names.
        reads = f"^{retriever.bundle.path} reads gender, age, tags; leave out sex$"
        with pytest.raises(UserError, match=reads):
            both.recommend(histories[0], user={"sex": "F"})
        neither = f"the model in {retriever.bundle.path} and {bundle} reads no times"
        with pytest.raises(UserError, match=neither):
            both.recommend(histories[0], request_time=5)
    with (
        joined(bundle, bundle, candidates=5) as folder,
        pytest.raises(UserError, match=f"^{bundle} and {bundle} read nothing of users; leave"),
    ):
        load(folder).recommend(histories[0], user={"age": 3})


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Scan, Nearby])
def test_any_retrieval_hears_of_users(served, histories, kind):
    trained, scorer = served
    options = {"probes": 99} if kind is Nearby else {}
    found = kind(scorer.bundle, 16, jax.devices()[:1], **options)
    ranker = Ranker(found, trained.known, scorer.bundle)
    table = pa.table({"history": histories[:4]})
    requests = scorer.reader.read(table, str)
    columns = {name: [f.get(name) for f in FACTS] for name in scorer.reader.user_columns}
    requests = replace(requests, users=scorer.reader.users(columns, 4, str))
    lists, expected = (x.rank(requests, top=10) for x in (ranker, scorer.ranker))
    np.testing.assert_array_equal(lists.items.values, expected.items.values)
    np.testing.assert_allclose(lists.scores, expected.scores, rtol=1e-5, atol=1e-5)


def test_the_command_line_says_what_is_known(served, histories, capsys):
    scorer = served[1]
    user = facts(("gender=F", "age=61", "tags=a"))
    assert user == {"gender": "F", "age": "61", "tags": "a"}
    assert facts(("tags=a", "tags=b=c")) == {"tags": ["a", "b=c"]}
    with pytest.raises(UserError, match="--user age: expected name=value, such as age=35"):
        facts(("age",))
    asked = histories[0]
    assert scorer.recommend(asked, user=user) == scorer.recommend(asked, user=FACTS[0])
    show_recommendations(scorer.bundle.path, asked, 3, user=user)
    shown = capsys.readouterr().out
    assert all(item in shown for item in scorer.recommend(asked, 3, user=FACTS[0]).item_ids)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_small_bundles_read_users_too(served, dtype, tmp_path):
    trained, scorer = served
    write_bundle(trained, tmp_path / "small", dtype=dtype)
    small = load(tmp_path / "small", batch_size=16, devices=jax.devices()[:1])
    ids = list(scorer.catalog.item_ids)
    expected = scorer.rank([ids[:3]], [ids[3:6]], users=FACTS[:1])[0]
    found = small.rank([ids[:3]], [ids[3:6]], users=FACTS[:1])[0]
    order = [found.item_ids.index(item) for item in expected.item_ids]
    np.testing.assert_allclose(np.array(found.scores)[order], expected.scores, atol=0.1)
    assert Bundle.open(tmp_path / "small").user_encoding == trained.user_encoding


def test_a_table_is_read_as_the_model_reads_it(served, store, tmp_path):
    """Codes of digits for a column of names, and columns that the model does not read."""
    scorer = served[1]
    rows = [f"{user},{number % 2},{30 + number},x{number}" for number, user in
            enumerate(store.user_ids()[:9])]  # fmt: skip
    (tmp_path / "users.csv").write_text("\n".join(["user_id,gender,age,note", *rows]) + "\n")
    options = Options(top=3, batch_size=16)
    output, table = tmp_path / "out", tmp_path / "users.csv"
    rank_file(scorer.bundle.path, store.path, output, options, users=table)
    mixed = '{"user_id": "%s", "tags": ["a"]}\n{"user_id": "%s", "tags": "b"}\n'
    (tmp_path / "users.jsonl").write_text(mixed % tuple(store.user_ids()[:2]))
    with (
        pytest.raises(UserError, match=r"the column 'tags' of users holds values of several"),
        request_file(store.path, tmp_path / "users.jsonl"),
    ):
        pass
