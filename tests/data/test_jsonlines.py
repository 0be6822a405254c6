"""JSON Lines: the same rows as from any other table, and messages that name the line."""

import gzip
import io
import json
import os

import pytest
from sample import whole
from test_readers import rows

from bert4rec_jax.data import jsonlines
from bert4rec_jax.data.columns import Columns
from bert4rec_jax.data.prepare import prepare
from bert4rec_jax.data.readers import read_log
from bert4rec_jax.errors import UserError

ROWS = [
    {"user_id": "7", "item_id": "0054890", "rating": 9, "timestamp": 5, "note": {"x": [1]}},
    {"item_id": "54890", "user_id": "8", "timestamp": 4.9, "rating": 2.5, "more": None},
    {"user_id": "7", "item_id": "x", "rating": None, "timestamp": 3},
]


def write(path, objects):
    path.write_text("\n\n".join(map(json.dumps, objects)) + "\n")
    return path


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "log.jsonl")
    with pytest.raises(UserError, match=r"log\.jsonl is no regular file, and a pipe can be read"):
        jsonlines.schema(tmp_path / "log.jsonl", {}, ())


@pytest.mark.parametrize("name", ["log.jsonl", "log.ndjson", "log.json", "log.txt"])
def test_an_object_per_line(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    assert read_log(path).format == "jsonl"
    assert rows(whole(path)) == [
        ("7", "0054890", 5, 9.0), ("8", "54890", 4, 2.5), ("7", "x", 3, None),
    ]  # fmt: skip


def test_ids_that_are_numbers_and_names_of_columns(tmp_path):
    objects = [{"reviewer": 2**53 + 1, "asin": 12, "unixTime": 5000}] * 2
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, objects)).encode()))
    columns = Columns("reviewer", "asin", "unixTime", None, unit="ms")
    assert rows(whole(path, columns=columns)) == [(str(2**53 + 1), "12", 5, None)] * 2


def test_a_row_per_user(tmp_path):
    path = write(
        tmp_path / "log.jsonl",
        [{"user_id": "a", "item_id": ["x", "y"], "timestamp": [1, 2]},
         {"user_id": "b", "item_id": [], "timestamp": []}],
    )  # fmt: skip
    assert rows(whole(path)) == [("a", "x", 1, None), ("a", "y", 2, None)]


def test_a_row_per_user_without_any_rating(tmp_path):
    path = write(
        tmp_path / "log.jsonl",
        [{"user_id": "a", "item_id": ["x", "y"], "timestamp": [1, 2], "rating": [None, None]},
         {"user_id": "b", "item_id": ["x"], "timestamp": [3], "rating": [None]}],
    )  # fmt: skip
    assert rows(whole(path)) == [("a", "x", 1, None), ("a", "y", 2, None), ("b", "x", 3, None)]


def test_many_blocks_give_the_store_of_one(tmp_path, monkeypatch):
    objects = [{"user_id": f"u{i % 9}", "item_id": f"i{i % 7}", "timestamp": i} for i in range(300)]
    path = write(tmp_path / "log.jsonl", objects)
    expected = whole(path)
    monkeypatch.setattr(jsonlines, "_BLOCK_BYTES", 256)
    assert rows(whole(path)) == rows(expected)
    store = prepare(path, tmp_path / "store").store
    assert (store.num_users, store.num_interactions) == (9, 300)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"user_id": "a", "item_id": 3, "timestamp": 1}',
         "line 203: item_id is 3, a number, and of another kind in the first lines"),
        ('{"user_id": "a", "item_id": "x", "timestamp": "soon"}',
         "line 203: timestamp is 'soon', text, and of another kind"),
        ('{"user_id": "a", "item_id": "x", "timestamp": -1}',
         "line 203: the timestamp -1.0 lies before 1970"),
        ('{"user_id": "a", "timestamp": 1}', "line 203: the item id is empty"),
        ('{"user_id": "a", "item_id": "x"}', "line 203: the timestamp is empty"),
        ('{"user_id": "a",', "line 203: '{\"user_id\": \"a\",' is not JSON"),
        ("[1, 2]", r"line 203: '\[1, 2\]' is no object; expected one JSON object per line"),
        ('{"user_id": "a", "item_id": "x", "timestamp": 1} ' * 2,
         r"line 203: .* is not JSON \(Extra data.*expected one object per line: fix or remove"),
        ('{"user_id": "a",\n"item_id": "x", "timestamp": 1}',
         "line 203: '{\"user_id\": \"a\",' is not JSON"),
        ('{"user_id": "a", "item_id": "x", "timestamp": 1, "user_id": "b"}',
         r"line 203: '.* cannot be read \(Column\(/user_id\) was specified twice\); fix or remove"),
        ('{"user_id": "a", "item_id": "x", "timestamp": 1e999}',
         r"line 203: '.*' cannot be read \(Number too big .*\); fix or remove the line"),
        (r'{"user_id": "a", "item_id": "\ud800", "timestamp": 1}',
         r"line 203: '.*' has half of a surrogate pair, which is not valid Unicode text; write"),
        (r'{"user_id": "a", "item_id": "x", "timestamp": 1, "note": ["\uDC00"]}',
         "line 203: .* has half of a surrogate pair"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(tmp_path, line, message):
    good = json.dumps({"user_id": "a", "item_id": "x", "timestamp": 1.5})
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([good, "", *[good] * 200, line]) + "\n")
    with pytest.raises(UserError, match=message):
        whole(path)


@pytest.mark.parametrize("field", [r'"item_id": "\ud800"', r'"item_id": "x", "\ud800": 1'])
def test_half_a_surrogate_pair_in_the_first_lines(tmp_path, field):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"user_id": "a", "timestamp": 1, {field}}}\n')
    with pytest.raises(UserError, match=r"line 1: '.* has half of a surrogate pair"):
        whole(path)


def test_both_halves_of_a_surrogate_pair_and_a_field_that_is_not_read_twice(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        r'{"user_id": "a", "item_id": "\ud83c\udfac \\ud800", "timestamp": 1, "x": 1, "x": 2}'
    )
    assert rows(whole(path)) == [("a", "\U0001f3ac \\ud800", 1, None)]


def test_one_array_is_no_log(tmp_path):
    path = tmp_path / "log.json"
    path.write_text(json.dumps(ROWS))
    with pytest.raises(UserError, match="expected one JSON object per line"):
        whole(path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text("\n\n")
    with pytest.raises(UserError, match="is empty"):
        whole(path)


def test_what_the_first_lines_do_not_have(tmp_path):
    """Writers leave out what is null, and write 4.0 as 4."""
    objects = [{"user_id": f"u{n}", "item_id": "x"} for n in range(150)]
    objects[120] |= {"rating": 4}
    objects[130] |= {"rating": 4.5}
    path = write(tmp_path / "log.jsonl", objects)
    read = rows(whole(path))
    assert [read[n][3] for n in (0, 120, 130)] == [None, 4.0, 4.5]
    assert not whole(path).timed

    whole_first = [
        {"user_id": "u", "item_id": "x", "timestamp": n, "rating": None} for n in range(150)
    ]
    whole_first += [{"user_id": "u", "item_id": "y", "timestamp": 150.5, "rating": 3}]
    assert rows(whole(write(path, whole_first)))[-1] == ("u", "y", 150, 3.0)

    empty = [{"user_id": "u", "item_id": []} for _ in range(120)]
    assert len(rows(whole(write(path, [*empty, {"user_id": "v", "item_id": ["x", "y"]}])))) == 2
    with pytest.raises(UserError, match="is empty: it holds no interaction"):
        whole(write(path, empty))

    late = [{"user_id": "u", "item_id": "x", "note": 1} for _ in range(120)]
    late += [{"user_id": "u", "item_id": "x", "timestamp": 7}]
    with pytest.raises(UserError, match="line 1: the timestamp is empty"):
        whole(write(path, late))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", 3, 4], "line 3: item_id is 3, a number, and of another kind in the first"),
        ([1, None, "b"], "line 3: item_id is 'b', text, and of another kind in the first lines"),
        ([["a"], [], ["b", 3]], r"line 3: item_id is \['b', 3\], a list, of several kinds; exp"),
        ([["a"], [], [3]], r"line 3: item_id is \[3\], a list, and of another kind in the first"),
        (["a", {"id": 3}], "line 2: item_id is {'id': 3}, an object, which cannot be read; expec"),
        ([{"id": 3}], "line 1: item_id is {'id': 3}, an object, which cannot be read; expected te"),
    ],
)  # fmt: skip
def test_the_first_line_that_differs_from_those_before_is_named(tmp_path, ids, message):
    path = tmp_path / "log.jsonl"
    rows = [{"user_id": "u", "item_id": item} for item in ids]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=message):
        whole(path)


def test_a_line_that_is_longer_than_a_block(tmp_path, monkeypatch):
    """Blocks grow; the rows that were read before are not read twice."""
    objects = [{"user_id": "a", "item_id": [f"i{i}"], "timestamp": [i]} for i in range(60)]
    everything = [f"item {i}" for i in range(2000)]
    objects[40] = {"user_id": "b", "item_id": everything, "timestamp": list(range(2000))}
    path = write(tmp_path / "log.jsonl", objects)
    expected = rows(whole(path))
    monkeypatch.setattr(jsonlines, "_BLOCK_BYTES", 256)
    assert rows(whole(path)) == expected and len(expected) == 2059
    monkeypatch.setattr(jsonlines, "_LONGEST_LINE", 256)
    with pytest.raises(UserError, match=r"cannot be read as JSON lines .*straddling"):
        whole(path)


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("before", [{}, {"étoiles": None}])
def test_a_late_column_whose_name_is_not_ascii(tmp_path, before, ascii_only):
    objects = [{"user_id": "a", "item_id": f"i{i}", "timestamp": i, **before} for i in range(120)]
    objects.append({"user_id": "a", "item_id": "last", "timestamp": 120, "étoiles": 3.5})
    text = "\n".join(json.dumps(each, ensure_ascii=ascii_only) for each in objects)
    (tmp_path / "log.jsonl").write_text(text, encoding="utf-8")
    columns = Columns(rating="étoiles")
    assert rows(whole(tmp_path / "log.jsonl", columns=columns))[-1] == ("a", "last", 120, 3.5)


def test_an_id_with_a_point_after_whole_ones_is_named_with_its_line(tmp_path):
    objects = [{"user_id": 1, "item_id": i, "timestamp": i} for i in range(120)]
    path = write(tmp_path / "log.jsonl", [*objects, {"user_id": 1, "item_id": 3.0, "timestamp": 9}])
    with pytest.raises(UserError, match=r"line 241: item_id is 3.0, a number, and of another kind"):
        whole(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n", "\n \t\n\n", "\r\n\r\n"])
@pytest.mark.parametrize("bytes_at_once", [64, 1 << 20])
def test_blank_lines_are_no_rows(tmp_path, monkeypatch, end, bytes_at_once):
    objects = [{"user_id": f"u{i}", "item_id": "x", "timestamp": i} for i in range(150)]
    path = tmp_path / "log.jsonl"
    path.write_bytes(end.join(map(json.dumps, objects)).encode())
    monkeypatch.setattr(jsonlines, "_BLOCK_BYTES", bytes_at_once)
    assert len(rows(whole(path))) == 150
    with path.open("ab") as file:
        file.write((end + json.dumps(objects[0]) * 2 + end).encode())
    line = len(path.read_bytes().rstrip().split(b"\n"))
    with pytest.raises(UserError, match=rf"line {line}: .* is not JSON \(Extra data"):
        whole(path)


def test_lines_are_counted_in_whatever_pieces_they_are_read():
    text = b"{}\n\n {} \r\n \t\r\n{}{}\n\n{}"
    for size in range(1, len(text) + 1):
        counter = jsonlines._LineCounter(io.BytesIO(text))
        assert b"".join(iter(lambda: counter.read(size), b"")) == text  # noqa: B023
        assert counter.lines == 4


def test_bytes_that_are_not_utf8_are_an_error_with_their_line(tmp_path):
    log = tmp_path / "log.jsonl"
    latin = b'{"user_id": "caf\xe9", "item_id": "x"}\n'
    log.write_bytes(b'{"user_id": "u", "item_id": "x"}\n\n' + latin)
    with pytest.raises(UserError, match=r"log\.jsonl, line 3: .*caf.*is not UTF-8 text; convert"):
        prepare(log, tmp_path / "out", min_user_interactions=1, min_item_interactions=1)
