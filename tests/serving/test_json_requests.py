"""Requests in JSON Lines: the answers of the same requests in Parquet; messages name lines."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert4rec_jax.data import jsonlines
from bert4rec_jax.errors import TemporaryError, UserError
from bert4rec_jax.features import user_encoding
from bert4rec_jax.serving.job import local, rank_file
from bert4rec_jax.serving.json_requests import as_parquet
from bert4rec_jax.serving.requests import RequestReader
from bert4rec_jax.serving.worker import Options

SMALL = Options(top=5, batch_size=16, shard_rows=40)
TIMED = {"times": True, "ended": 10**9}


@pytest.fixture
def table(histories):
    """150 requests, of which only late ones exclude anything."""
    asked = [histories[row % len(histories)][: 1 + row % 9] for row in range(150)]
    exclude = [None] * 120 + [history[:1] for history in histories[:30]]
    return pa.table({"user_id": range(150), "history": asked, "exclude": exclude})


@pytest.fixture
def reader(scorer):
    """Reads times too."""
    return RequestReader(scorer.catalog, **TIMED)


def write(path, rows, between="\n"):
    text = between.join(json.dumps({k: v for k, v in row.items() if v is not None}) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def converted(path, reader):
    with as_parquet(path, path.with_name("out"), reader) as file:
        return pq.read_table(file)


@pytest.mark.parametrize("name", ["in.jsonl", "in.ndjson", "in.json", "in.jsonl.gz"])
def test_the_answers_are_those_of_parquet(bundle, table, tmp_path, name):
    pq.write_table(table, tmp_path / "in.parquet")
    of_parquet = rank_file(bundle, tmp_path / "in.parquet", tmp_path / "expected", SMALL)
    path = write(tmp_path / name, table.to_pylist(), between="\n\n")
    told = []
    found = rank_file(bundle, path, tmp_path / "out", SMALL, notify=told.append)
    assert found["counts"] == of_parquet["counts"] and told == []
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "expected"))
    assert {file.name for file in tmp_path.iterdir()} == {name, "in.parquet", "expected", "out"}


def test_an_interrupted_job_continues_unless_the_lines_have_changed(bundle, table, tmp_path):
    path, rows = tmp_path / "in.jsonl", table.to_pylist()
    rank_file(bundle, write(path, rows), tmp_path / "whole", SMALL)

    def interrupted(plan, opened, missing):
        yield from local(plan, opened, missing[:2])
        raise TemporaryError("interrupted")

    with pytest.raises(TemporaryError, match="interrupted"):
        rank_file(bundle, path, tmp_path / "out", SMALL, engine=interrupted)
    assert not list(tmp_path.glob(".out.*"))  # the temporary file is gone
    with pytest.raises(UserError, match="belongs to another job:\n  requests: "):
        rank_file(bundle, write(path, rows[::-1]), tmp_path / "out", SMALL)
    told = []
    write(path, [dict(reversed(row.items())) for row in rows], between=" \n\n")  # the same requests
    rank_file(bundle, path, tmp_path / "out", SMALL, progress=lambda *now: told.append(now))
    assert told[0] == (80, 150) and told[-1] == (150, 150)
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()


def test_lines_that_change_during_the_job_are_answered_as_they_were(bundle, table, tmp_path):
    path, rows = tmp_path / "in.jsonl", table.to_pylist()
    rank_file(bundle, write(path, rows), tmp_path / "whole", SMALL)
    rank_file(bundle, path, tmp_path / "out", SMALL, progress=lambda *now: write(path, rows[:3]))
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "whole"))


def test_errors_of_a_job_name_the_line(bundle, table, tmp_path):
    rows = [{**row, "ratings": [5] * len(row["history"])} for row in table.to_pylist()]
    rows[77]["ratings"] = [1, 2, 3]
    path = write(tmp_path / "in.jsonl", rows, between="\n\n")
    with pytest.raises(UserError, match=r"in\.jsonl, line 155: 3 ratings for 6 items in history"):
        rank_file(bundle, path, tmp_path / "out", SMALL)


def test_columns_that_are_not_read_are_named(bundle, tmp_path):
    row = {"user_id": "u", "history": [], "candidate": ["x"], "context": {"page": 1}}
    told = []
    rank_file(bundle, write(tmp_path / "in.jsonl", [row]), tmp_path / "out", notify=told.append)
    assert told == ["columns that are not read: candidate, context; did you mean candidates?"]


@pytest.mark.parametrize("size", [7, 64, 1024])
def test_the_same_objects_are_the_same_bytes(table, tmp_path, monkeypatch, reader, size):
    """Whatever the blocks that the text is read in, spaces, the order of fields and packing."""
    monkeypatch.setattr("bert4rec_jax.serving.json_requests._GROUP", size)
    rows = [
        {**row, "timestamps": ["2001-01-01"] * len(row["history"])} for row in table.to_pylist()
    ]
    path = write(tmp_path / "in.jsonl", rows)
    with as_parquet(path, tmp_path / "out", reader) as file:
        expected = file.read_bytes()
        found = pq.read_table(file).drop_columns("timestamps")
        assert found.equals(table.cast(found.schema))
    other = [dict(reversed(row.items())) for row in rows]
    packed = write(tmp_path / "in.jsonl.gz", other, between="  \n\n")
    for block in (256, 3000):
        monkeypatch.setattr(jsonlines, "_BLOCK_BYTES", block)
        for one in (path, packed):
            with as_parquet(one, tmp_path / "out", reader) as file:
                assert file.read_bytes() == expected


def test_nothing_but_nulls_and_empty_lists(tmp_path, reader):
    rows = [{"user_id": "a", "history": [], "exclude": []}] * 2
    (tmp_path / "in.jsonl").write_text(
        "\n".join(json.dumps({**row, "ratings": None, "candidates": None}) for row in rows)
    )
    found = converted(tmp_path / "in.jsonl", reader)
    assert found.to_pylist() == [
        {"user_id": "a", "history": [], "exclude": [], "ratings": None, "candidates": None}
    ] * 2  # fmt: skip
    assert found.schema.field("candidates").type == pa.list_(pa.string())


def test_lists_of_nothing_but_nulls(tmp_path, reader):
    rows = [
        {"user_id": "a", "history": ["1", "2"], "ratings": [None, None], "timestamps": [None] * 2},
        {"user_id": "b", "history": ["1"], "ratings": [None], "timestamps": None},
        {"user_id": "c", "history": [], "ratings": [], "timestamps": []},
    ]
    assert converted(write(tmp_path / "in.jsonl", rows), reader).to_pylist() == rows


def test_times_may_be_numbers_or_dates(tmp_path, reader):
    rows = [
        {"history": ["1", "2"], "timestamps": ["1970-01-02", None], "request_time": "1970-01-03"},
        {"history": ["1"], "timestamps": None, "request_time": None},
        {"history": ["1"], "timestamps": ["1970-01-01T01:00:00+01:00"]},
        {"history": [], "timestamps": [], "request_time": "1970-01-01 00:01:00.5"},
    ]
    for row in rows:
        row["user_id"] = "u"
    found = converted(write(tmp_path / "in.jsonl", rows), reader)
    day = 86_400
    assert found["timestamps"].to_pylist() == [[day, None], None, [0], []]
    assert found["request_time"].to_pylist() == [2 * day, None, None, 60]
    numbers = [{"user_id": "u", "history": ["1"], "timestamps": [5], "request_time": 6.5}]
    found = reader.read(converted(write(tmp_path / "in.jsonl", numbers), reader), str)
    assert (found.times.tolist(), found.at.tolist()) == ([5], [6])


def test_whole_numbers_of_users_are_numbers_or_codes(tmp_path, scorer):
    """`genre` was text when the model was trained; the ages are whole only in the first lines."""
    encoding = user_encoding.fit({"genre": ["1", "2"], "age": [1.0, 2.0]}, [True, True], str)
    reader = RequestReader(scorer.catalog, [encoding])
    rows = [
        {"user_id": 2**53 + 1, "history": [], "genre": 1, "age": age} for age in [30] * 100 + [30.5]
    ]
    found = converted(write(tmp_path / "in.jsonl", rows), reader)
    assert found["user_id"][0].as_py() == 2**53 + 1
    assert found["genre"].type == pa.int64() and found["age"][100].as_py() == 30.5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user_id": "a", "history": "1"}', "in.jsonl: column 'history' is of type string; exp"),
        ('{"user": "a", "history": ["1"]}', "in.jsonl has no column 'user_id'; its columns are"),
        ('{"user_id": null, "history": []}', "in.jsonl, line 1: column 'user_id' is null; every"),
        ('{"user_id": "a", "history": ["1", 2]}', r"line 1: history is \['1', 2\], a list, of sev"),
        ('{"user_id": "a", "history": [1.5]}', "'history' is of type list.*double.*; expected"),
        ('[{"user_id": "a", "history": []}]', "line 1: .* is no object; expected one JSON object"),
        ('{"user_id": "a", "history": [}', "line 1: .* is not JSON"),
        ('{"user_id": "a", "history": [], "request_time": "soon"}',
         "line 1: request_time: the timestamp 'soon' is not valid; expected seconds since 1970"),
        ('{"user_id": "a", "history": ["1"], "timestamps": ["1"], "request_time": true}',
         "column 'request_time' is of type bool; expected times"),
        ('{"user_id": "a", "history": ["1"], "timestamps": ["x"]}',
         "line 1: timestamps: the timestamp 'x' is not valid"),
        ('{"user_id": "a", "history": [], "user_id": "b"}',
         r"in.jsonl, line 1: .* cannot be read \(Column\(/user_id\) was specified twice\); fix or"),
        (r'{"user_id": "a", "history": ["\ud800"]}', "line 1: .* has half of a surrogate pair"),
        ("", "in.jsonl is empty"),
    ],
)  # fmt: skip
def test_lines_that_are_no_requests(tmp_path, reader, line, message):
    path = tmp_path / "in.jsonl"
    path.write_text(line)
    with pytest.raises(UserError, match=message):
        converted(path, reader)
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_later_user_without_a_name_is_found(tmp_path, reader):
    rows = [{"user_id": "a", "history": []}] * 120 + [{"history": []}]
    with pytest.raises(UserError, match=r"in\.jsonl, line 121: column 'user_id' is null"):
        converted(write(tmp_path / "in.jsonl", rows), reader)


def test_a_full_disk_is_one_clear_error(tmp_path, reader, full_disk):
    rows = [{"user_id": f"{n * 7919}", "history": []} for n in range(9999)]
    path = write(tmp_path / "in.jsonl", rows)
    with full_disk(4096), pytest.raises(TemporaryError, match=r"cannot write .*requests\.parquet"):
        converted(path, reader)


def test_other_files_stay_as_they_are(tmp_path, reader):
    for path in (tmp_path / "in.parquet", tmp_path / "in.csv", tmp_path):
        with as_parquet(path, tmp_path / "out", reader) as file:
            assert file == path
    with (
        pytest.raises(UserError, match="the output is '/'; expected the name of a folder to make"),
        as_parquet(tmp_path / "in.jsonl", type(tmp_path)("/"), reader),
    ):
        pass


def test_an_error_of_the_job_is_not_one_of_the_file(tmp_path, reader):
    path = write(tmp_path / "in.jsonl", [{"user_id": "a", "history": []}])
    with pytest.raises(BrokenPipeError), as_parquet(path, tmp_path / "out", reader):
        raise BrokenPipeError
    assert [file.name for file in tmp_path.iterdir()] == ["in.jsonl"]
