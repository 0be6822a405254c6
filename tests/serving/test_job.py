"""A batch job: whole, killed and continued, with wrong input."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sample import write_parquet

from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.serving.filters import Filters
from bert4rec_jax.serving.job import local, rank_file
from bert4rec_jax.serving.request_file import RequestFile
from bert4rec_jax.serving.shards import Shard, Shards
from bert4rec_jax.serving.store_requests import request_file, write_requests
from bert4rec_jax.serving.worker import Options, Plan, Worker

SMALL = Options(top=5, batch_size=16, shard_rows=40)
KILLED = """
import sys, time
from pathlib import Path
from bert4rec_jax.serving.filters import Filters
from bert4rec_jax.serving.job import rank_file
from bert4rec_jax.serving.worker import Options
def slow(done, total):
    time.sleep(0.2 if done else 0)
rank_file(*map(Path, sys.argv[1:]), Options(top=5, batch_size=16, shard_rows=40), progress=slow)
"""


@pytest.fixture
def requests(tmp_path, histories):
    """200 requests."""
    users = [f"u{row}" for row in range(200)]
    asked = [histories[row % len(histories)][: 1 + row % 9] for row in range(200)]
    pq.write_table(pa.table({"user_id": users, "history": asked}), tmp_path / "in.parquet")
    return tmp_path / "in.parquet"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_row_i_answers_request_i(bundle, scorer, requests, tmp_path):
    manifest = rank_file(bundle, requests, tmp_path / "out", SMALL)
    assert manifest["finished"] and manifest["counts"]["requests"] == 200
    table = pq.read_table(tmp_path / "out")  # reads over the manifest
    assert table.schema.names == ["user_id", "item_ids", "scores"]
    assert table["user_id"].to_pylist() == [f"u{row}" for row in range(200)]
    assert table.schema.field("scores").type.value_type == pa.float32()
    expected = scorer.recommend_batch(pq.read_table(requests)["history"].to_pylist(), 5)
    for row, answer in zip(table.to_pylist(), expected):
        assert row["item_ids"] == list(answer.item_ids)
        np.testing.assert_allclose(row["scores"], answer.scores, rtol=1e-5, atol=1e-5)
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert [part.name for part in parts] == [f"part-{n:06d}.parquet" for n in range(5)]


def test_candidates_and_exclusions(bundle, scorer, tmp_path):
    ids = scorer.catalog.item_ids
    asked = {
        "user_id": [4, 4],
        "history": [[ids[0]], None],
        "candidates": [[ids[0], ids[7], ids[7], "x"], [ids[3], ids[9], ids[1]]],
        "exclude": [[], [ids[9]]],
    }
    pq.write_table(pa.table(asked), tmp_path / "in.parquet")
    manifest = rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", Options())
    first, second = pq.read_table(tmp_path / "out").to_pylist()
    assert first["user_id"] == 4 and first["item_ids"] == [ids[7]]
    assert set(second["item_ids"]) == {ids[1], ids[3]}
    expected = {
        "requests": 2, "duplicate_users": 1, "null_lists": 1, "empty_histories": 1,
        "history_items": 1, "unknown_history_items": 0, "candidates": 7, "unknown_candidates": 1,
        "repeated_candidates": 1, "excluded_candidates": 2, "unlisted_candidates": 0,
        "unknown_excluded_items": 0,
    }  # fmt: skip
    assert manifest["counts"] == expected
    assert manifest["job"]["top"] is None


def test_lines_of_a_list_that_are_no_ids_are_told(bundle, scorer, requests, tmp_path):
    ids, said = scorer.catalog.item_ids, []
    (tmp_path / "only.txt").write_text("\n".join([*ids[:9], "no such id", f" {ids[9]} ", ""]))
    options = Options(top=3, filters=Filters(only=tmp_path / "only.txt"))
    rank_file(bundle, requests, str(tmp_path / "out"), options, notify=said.append)
    expected = "1 of its ids, such as 'no such id', are not in the catalog"
    assert said == [f"{tmp_path / 'only.txt'}: {expected}"]


def test_all_users_of_a_prepared_log_are_requests(bundle, scorer, store, tmp_path):
    with request_file(store.path) as asked:
        rank_file(bundle, asked, tmp_path / "out", SMALL)
        requests = pq.read_table(asked).to_pylist()
    rows = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["user_id"] for row in rows] == store.user_ids()
    catalog = store.catalog
    for user, row in enumerate(requests):
        assert row["history"] == [catalog.item_id(token) for token in store.history(user)]
        stars = store.ratings[store.offsets[user] : store.offsets[user + 1]]
        np.testing.assert_array_equal(row["ratings"], stars)
    answer = scorer.recommend(requests[7]["history"], k=5, ratings=requests[7]["ratings"])
    assert tuple(rows[7]["item_ids"]) == answer.item_ids
    rank_file(bundle, store.path, tmp_path / "as the command", SMALL)
    assert pq.read_table(tmp_path / "as the command").to_pylist() == rows
    with pytest.raises(UserError, match="is a prepared log, which other machines cannot read"):
        rank_file(bundle, store.path, tmp_path / "far", SMALL, engine=lambda *plan: iter(()))
    with request_file(tmp_path / "in.parquet") as same:
        assert same == tmp_path / "in.parquet"


@pytest.mark.parametrize(("most", "parts"), [(12, 20), (3, 40)])
def test_more_text_than_one_array_holds_is_cut(
    bundle, requests, store, tmp_path, monkeypatch, most, parts
):
    """Into row groups, here for lists of 5 ids; rows and columns stay the same."""
    write_requests(store, tmp_path / "whole.parquet")
    rank_file(bundle, requests, tmp_path / "whole", SMALL)
    longest = max(map(len, store.catalog.item_ids))
    monkeypatch.setattr("bert4rec_jax.serving.ragged._TEXT_BYTES", most * longest)
    rank_file(bundle, requests, tmp_path / "cut", SMALL)
    assert pq.read_table(tmp_path / "cut").equals(pq.read_table(tmp_path / "whole"))
    cut, whole = (
        pq.ParquetFile(tmp_path / name / "part-000000.parquet") for name in ("cut", "whole")
    )
    assert (cut.num_row_groups, whole.num_row_groups) == (parts, 1)
    assert cut.schema_arrow == whole.schema_arrow
    assert rank_file(bundle, requests, tmp_path / "cut", SMALL)["finished"]  # reads all parts

    write_requests(store, tmp_path / "cut.parquet")
    assert pq.read_table(tmp_path / "cut.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))
    lengths = np.diff(store.offsets)
    assert pq.ParquetFile(tmp_path / "cut.parquet").num_row_groups == (lengths > 0).sum()
    monkeypatch.setattr("bert4rec_jax.serving.ragged._TEXT_BYTES", lengths[:2].sum() * longest)
    write_requests(store, tmp_path / "cut.parquet")
    assert pq.ParquetFile(tmp_path / "cut.parquet").metadata.row_group(0).num_rows == 2


def test_the_users_of_a_damaged_log_are_refused(store, tmp_path):
    damaged = shutil.copytree(store.path, tmp_path / "store")
    with (damaged / "tokens.npy").open("r+b") as file:
        file.seek(-4, 2)
        file.write(b"\xff\xff\xff\x7f")
    with (
        pytest.raises(UserError, match=r"tokens\.npy does not match its checksum .* prepare the"),
        request_file(damaged),
    ):
        pass


def test_a_full_disk_for_the_users_of_a_log_is_one_clear_error(store, tmp_path, full_disk):
    with (
        full_disk(512),
        pytest.raises(TemporaryError, match=r"cannot write .*in\.parquet: File too"),
    ):
        write_requests(store, tmp_path / "in.parquet")
    assert not list(tmp_path.iterdir())


def test_no_requests_are_an_empty_table(bundle, tmp_path):
    empty = pa.table(
        {"user_id": pa.array([], pa.string()), "history": pa.array([], pa.list_(pa.string()))}
    )
    pq.write_table(empty, tmp_path / "in.parquet")
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", SMALL)
    assert pq.read_table(tmp_path / "out").schema.names == ["user_id", "item_ids", "scores"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_job_continues_to_the_very_same_files(bundle, requests, tmp_path, number):
    rank_file(bundle, requests, tmp_path / "whole", SMALL)
    partial = tmp_path / "out.partial"
    arguments = [sys.executable, "-c", KILLED, *map(str, (bundle, requests, tmp_path / "out"))]
    with subprocess.Popen(arguments) as process:
        deadline = time.monotonic() + 100
        while not (partial / "part-000001.parquet").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(timeout=60) == -number
    done = {file.name: file.stat().st_mtime_ns for file in partial.iterdir()}
    parts = sorted(name for name in done if name.endswith(".parquet"))
    assert 2 <= len(parts) < 5 and not (tmp_path / "out").exists()
    (partial / "part-000004.parquet.partial").write_bytes(b"cut off")
    told = []
    rank_file(bundle, requests, tmp_path / "out", SMALL, progress=lambda *now: told.append(now))
    assert told[0] == (40 * len(parts), 200) and told[-1] == (200, 200)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == done[name] for name in parts)
    assert not partial.exists()


def test_a_damaged_shard_is_made_again(bundle, requests, tmp_path):
    whole = rank_file(bundle, requests, tmp_path / "out", SMALL)
    expected = contents(tmp_path / "out")
    partial = (tmp_path / "out").rename(tmp_path / "out.partial")
    (partial / "part-000001.parquet").write_bytes(expected["part-000001.parquet"][:-9])
    (partial / "part-000003.parquet").unlink()
    assert rank_file(bundle, requests, tmp_path / "out", SMALL) == whole
    assert contents(tmp_path / "out") == expected


def test_a_finished_job_is_not_done_again(bundle, requests, tmp_path, monkeypatch):
    first = rank_file(bundle, requests, tmp_path / "out", SMALL)
    monkeypatch.setattr("bert4rec_jax.serving.worker.Scorer", None)
    assert rank_file(bundle, requests, tmp_path / "out", SMALL) == first


@pytest.mark.parametrize("damage", [lambda part: part.unlink(), lambda part: part.write_bytes(b"")])
def test_a_part_that_was_lost_since_is_named(bundle, requests, tmp_path, damage):
    rank_file(bundle, requests, tmp_path / "out", SMALL)
    expected = contents(tmp_path / "out")
    damage(tmp_path / "out" / "part-000002.parquet")
    with pytest.raises(UserError, match=r"part-000002.* rename .*out to out.partial and run"):
        rank_file(bundle, requests, tmp_path / "out", SMALL)
    (tmp_path / "out").rename(tmp_path / "out.partial")
    rank_file(bundle, requests, tmp_path / "out", SMALL)
    assert contents(tmp_path / "out") == expected


def test_a_bundle_that_is_replaced_while_a_job_begins(bundle, rare, requests, tmp_path):
    rank_file(bundle, requests, tmp_path / "expected", SMALL)
    copy = shutil.copytree(bundle, tmp_path / "bundle")

    def replace_and_work(plan, opened, missing):
        shutil.rmtree(copy)
        shutil.copytree(rare.bundle.path, copy)
        return local(plan, opened, missing)

    rank_file(copy, requests, tmp_path / "out", SMALL, engine=replace_and_work)
    assert contents(tmp_path / "out") == contents(tmp_path / "expected")


@pytest.mark.parametrize("damage", ["changed", "cut off"])
def test_damaged_parts_are_found_and_made_again(bundle, requests, tmp_path, damage):
    rank_file(bundle, requests, tmp_path / "out", SMALL)
    expected = contents(tmp_path / "out")
    part = tmp_path / "out" / "part-000001.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 4] ^= 1
    part.write_bytes(content if damage == "changed" else content[:-1])
    with pytest.raises(UserError, match=r"part-000001.parquet is missing, damaged or unreadable"):
        rank_file(bundle, requests, tmp_path / "out", SMALL)
    (tmp_path / "out").rename(tmp_path / "out.partial")
    rank_file(bundle, requests, tmp_path / "out", SMALL)
    assert contents(tmp_path / "out") == expected


def test_only_one_process_makes_an_output(bundle, requests, tmp_path):
    with (
        job(tmp_path / "out").held(),
        pytest.raises(TemporaryError, match=r"another process is making .*out; run the same comm"),
    ):
        rank_file(bundle, requests, tmp_path / "out", SMALL)
    assert rank_file(bundle, requests, tmp_path / "out", SMALL)["finished"]


def test_an_output_where_nothing_can_be_written_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(TemporaryError, match=r"out.partial: Not a directory; .* another --output$"),
        job(tmp_path / "file" / "out").held(),
    ):
        pass


def test_what_another_process_finished_meanwhile_is_there(bundle, requests, tmp_path, monkeypatch):
    held = Shards.held

    @contextmanager
    def later(shards):
        monkeypatch.setattr(Shards, "held", held)
        rank_file(bundle, requests, tmp_path / "out", SMALL)
        with held(shards):
            yield

    monkeypatch.setattr(Shards, "held", later)

    def nobody(plan, bundle, missing):
        raise AssertionError(missing)

    assert rank_file(bundle, requests, tmp_path / "out", SMALL, engine=nobody)["finished"]
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("there", [True, False])
def test_an_output_may_be_a_link(bundle, requests, tmp_path, there):
    link, folder = tmp_path / "link", tmp_path / "disk" / "out"
    if there:
        folder.mkdir(parents=True)
    link.symlink_to(folder)
    rank_file(bundle, requests, link, SMALL)
    assert link.is_symlink() and (folder / "part-000004.parquet").is_file()
    assert rank_file(bundle, requests, link, SMALL)["finished"]


def test_workers_need_not_see_the_file_of_allowed_items(bundle, scorer, requests, tmp_path):
    """On a cluster they may start elsewhere, and a file may change while a job is at work."""
    allowed, file = scorer.catalog.item_ids[:30], tmp_path / "only.txt"
    file.write_text("\n".join([*allowed, "", " none "]))

    def elsewhere(plan, opened, missing):
        file.unlink()
        yield from local(plan, opened, missing)

    options = replace(SMALL, filters=Filters(only=file))
    with pytest.warns(UserWarning, match="1 of its ids, such as ' none ', are not in the catalog"):
        rank_file(bundle, requests, tmp_path / "out", options, engine=elsewhere)
    listed = pq.read_table(tmp_path / "out")["item_ids"].combine_chunks().flatten().to_pylist()
    assert listed and set(listed) <= set(allowed)


@pytest.mark.parametrize("output", ["", ".", "/", "somewhere/.."])
def test_an_output_without_a_name(output):
    with pytest.raises(UserError, match=r"the output is .*; expected the name of a folder to make"):
        job(Path(output))


def test_a_worker_refuses_another_bundle_than_that_of_the_job(bundle, requests, tmp_path):
    plan = Plan(bundle, "f" * 64, RequestFile.open(requests), job(tmp_path / "out"), SMALL)
    with pytest.raises(UserError, match="is another bundle on this machine than where the job"):
        next(Worker(plan).make(range(1)))


def job(output, **changes):
    return Shards(output, {"bundle": "b" * 64, "requests": "r" * 64, "top": 5, **changes})


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bundle": "c" * 64}, "bundle: 'b{64}' there, 'c{64}' now"),
        ({"requests": "s" * 64}, "requests: 'r{64}' there"),
        ({"top": None}, "top: 5 there, None now"),
    ],
)
def test_the_output_of_another_job_is_refused(tmp_path, finished, changes, message):
    shards = job(tmp_path / "out")
    with shards.held():
        shards.begin()
        if finished:
            shards.finish({})
    with pytest.raises(
        UserError, match=f"belongs to another job:\n  {message}(.|\n)*choose another output"
    ):
        job(tmp_path / "out", **changes).finished()


def test_a_shard_of_another_job_or_length_is_made_again(tmp_path):
    shards, made = job(tmp_path / "out"), Shard(0, 3, Counter(requests=3), "here")
    with shards.held():
        shards.write(made, [pa.table({"user_id": ["a", "b", "c"]})])
        assert shards.made(0, 3) == made
        assert shards.made(0, 4) is None
        assert job(tmp_path / "out", top=7).made(0, 3) is None


def test_other_requests_under_the_same_name_are_another_job(bundle, requests, tmp_path):
    table = pq.read_table(requests).slice(0, 4)
    pq.write_table(table, requests)
    rank_file(bundle, requests, tmp_path / "out", SMALL)
    pq.write_table(table.take([3, 2, 1, 0]), requests)
    with pytest.raises(UserError, match="belongs to another job:\n  requests: "):
        rank_file(bundle, requests, tmp_path / "out", SMALL)


def test_a_place_that_is_taken(tmp_path):
    (tmp_path / "out").mkdir()
    assert job(tmp_path / "out").finished() is None
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for path in (tmp_path / "out", tmp_path / "out" / "notes.txt"):
        with pytest.raises(UserError, match=f"{path} exists and is no output of `bert4rec rank`"):
            job(path).finished()


def test_an_empty_folder_is_taken(bundle, requests, tmp_path):
    (tmp_path / "out").mkdir()
    assert rank_file(bundle, requests, tmp_path / "out", SMALL)["finished"]


def test_a_job_that_was_killed_over_its_first_manifest_continues(bundle, requests, tmp_path):
    left = tmp_path / "out.partial" / "_manifest.json.0a1b2c3d.partial"
    left.parent.mkdir()
    left.write_text('{"jo')
    assert rank_file(bundle, requests, tmp_path / "out", SMALL)["finished"]
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"_manifest.json", *(f"part-{number:06d}.parquet" for number in range(5))}


def test_what_another_job_left_is_refused_beside_an_empty_folder_too(tmp_path):
    left = job(tmp_path / "out")
    with left.held():
        left.begin()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"out\.partial belongs to another job:\n  top: 5 there"):
        job(tmp_path / "out", top=7).finished()


def test_a_full_disk_is_one_clear_error_and_finished_shards_stay(tmp_path, full_disk):
    shards = job(tmp_path / "out")
    table = pa.table({"user_id": np.random.default_rng(0).integers(0, 1 << 60, 4000)})
    whole = Shard(0, 4000, Counter(requests=4000), "JAX 0.0, cpu")
    with shards.held():
        shards.begin()
        shards.write(whole, [table])
    with full_disk(8192), pytest.raises(UserError, match=r"cannot write .*part-000001.* make room"):
        shards.write(replace(whole, number=1), [table])
    assert shards.made(0, 4000) == whole
    assert shards.made(1, 4000) is None
    assert not list(tmp_path.rglob("*.parquet.partial"))


def test_ids_of_another_system_are_refused(bundle, tmp_path):
    asked = pa.table({"user_id": ["a"], "history": [["tt0133093"] * 20]})
    pq.write_table(asked, tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"none of the 20 ids in history .such as 'tt0133093'"):
        rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", SMALL)


def test_a_few_users_may_have_seen_new_items_alone(bundle, tmp_path):
    strings = pa.array([["new"], []], pa.list_(pa.string_view()))
    asked = pa.table({"user_id": pa.array(["a", "b"], pa.string_view()), "history": strings})
    said = []
    write_parquet(asked, tmp_path / "in.parquet")
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", SMALL, notify=said.append)
    answered = pq.read_table(tmp_path / "out" / "part-000000.parquet")["user_id"]
    assert set(answered.to_pylist()) == {"a", "b"}
    assert "1 of 1 items in histories are not in the catalog" in "".join(said)
    with pytest.warns(UserWarning, match="^1 of 1 items in histories are not in the catalog"):
        rank_file(bundle, tmp_path / "in.parquet", tmp_path / "again", SMALL)


def test_the_first_shard_may_be_of_new_users_alone(bundle, scorer, tmp_path):
    """Users of today have seen nothing but today's items, which the bundle lacks."""
    known = scorer.catalog.item_ids[0]
    asked = pa.table({"user_id": ["new", "old"], "history": [["today"], [known]]})
    pq.write_table(asked, tmp_path / "in.parquet")
    one = replace(SMALL, shard_rows=1)
    manifest = rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", one)
    assert manifest["counts"]["unknown_history_items"] == 1


def test_ratings_that_do_not_fit_name_the_row(bundle, requests, tmp_path):
    table = pq.read_table(requests)
    ratings = [[5.0] * len(row) for row in table["history"].to_pylist()]
    ratings[77] = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    pq.write_table(table.append_column("ratings", pa.array(ratings)), requests)
    with pytest.raises(UserError, match=r"in.parquet, row 77: 7 ratings for 6 items in history"):
        rank_file(bundle, requests, tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"options": {"top": 3}}, "options is of type dict; expected RankOptions"),
        ({"engine": "ray"}, "engine is of type str; expected a function"),
        ({"requests": pa.table({})}, r"requests is of type Table; .* \(write a table to a file"),
        ({"output": None}, "output is of type NoneType; expected the path of a file or folder"),
    ],
)
def test_arguments_of_other_types(bundle, requests, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        rank_file(bundle, **{"requests": requests, "output": tmp_path / "out", **given})
    assert not list(tmp_path.glob("out*"))


def test_numbers_of_numpy_are_options():
    assert type(Options(top=np.int64(2)).top) is int


@pytest.mark.parametrize("name", ["top", "batch_size", "shard_rows"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "at least 1"), ("5", "a whole number"), (2.5, "a whole number"), (True, "a whole number")],
)
def test_options_that_cannot_be(name, value, expected):
    with pytest.raises(UserError, match=f"{name} is {value!r}; expected {expected}"):
        Options(**{name: value})


def test_every_shard_says_where_it_comes_from(bundle, requests, tmp_path):
    manifest = rank_file(bundle, requests, tmp_path / "out", SMALL)
    described = pq.read_metadata(tmp_path / "out" / "part-000002.parquet").metadata[b"bert4rec"]
    assert json.loads(described)["job"] == manifest["job"]


def test_requests_that_are_refused_leave_nothing_behind(bundle, requests, tmp_path):
    good = requests.read_bytes()
    pq.write_table(pa.table({"user_id": ["u"], "history": [["nowhere"] * 20]}), requests)
    with pytest.raises(UserError, match="none of the 20 ids"):
        rank_file(bundle, requests, tmp_path / "out", SMALL)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.parquet"]
    requests.write_bytes(good)  # repaired: the same command works
    assert rank_file(bundle, requests, tmp_path / "out", SMALL)["finished"]


def test_what_looks_like_a_mistake_is_told(bundle, histories, tmp_path):
    table = {
        "user_id": ["u", "v"],
        "history": [["nowhere"] * 9, histories[0][:1]],
        "candidate": [["a"], ["b"]],
        "day": [1, 2],
    }
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    told = []
    rank_file(bundle, tmp_path / "in.parquet", tmp_path / "out", SMALL, notify=told.append)
    assert told == [
        "columns that are not read: candidate, day; did you mean candidates?",
        "9 of 10 items in histories are not in the catalog of the bundle; if that is not meant, "
        "write ids as in the training data",
    ]


@pytest.mark.parametrize("name", ["in.csv", "in.tsv", "in.csv.gz", "in.txt"])
def test_requests_in_a_table_of_text_are_one_clear_error(bundle, tmp_path, name):
    (tmp_path / name).write_text("user_id,history\nu,1\n")
    message = rf'{name} is a table of text, which has no lists; write .* such as {{"user_id": "7",'
    with pytest.raises(UserError, match=message):
        rank_file(bundle, tmp_path / name, tmp_path / "out", SMALL)


@pytest.mark.parametrize("change", ["longer", "shorter", "other", "fewer columns", "gone"])
def test_requests_that_change_during_the_job(bundle, requests, tmp_path, histories, change):
    """Neither a finished output nor shards that answer other requests are left."""
    folder = tmp_path / "asked"
    folder.mkdir()
    table = pq.read_table(requests)
    table = table.append_column("exclude", pa.array([[]] * len(table), pa.list_(pa.string())))
    pq.write_table(table.slice(0, 100), folder / "a.parquet")
    later = folder / "b.parquet"
    pq.write_table(table.slice(100), later)
    as_it_was = later.read_bytes()
    others = {
        "longer": pa.concat_tables([table.slice(100), table.slice(0, 50)]),
        "shorter": table.slice(150),
        "other": table.slice(0, 100),
        "fewer columns": table.slice(100).drop_columns("exclude"),
    }

    def swap(done, total):
        if done == 40:
            later.unlink()
            if change in others:
                pq.write_table(others[change], later)

    with pytest.raises(UserError, match=r"changed while its requests were|does not exist"):
        rank_file(bundle, folder, tmp_path / "out", SMALL, progress=swap)
    assert not (tmp_path / "out").exists()
    later.write_bytes(as_it_was)
    rank_file(bundle, folder, tmp_path / "out", SMALL)
    answered = pq.read_table(tmp_path / "out")
    rank_file(bundle, requests, tmp_path / "whole", SMALL)
    assert answered.equals(pq.read_table(tmp_path / "whole"))
